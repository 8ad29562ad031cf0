//! The union, seen through the VFS, over trees made in tmpfs.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use cred::Credentials;
use guestmem::{SliceSource, VecSink};
use tmpfs::{HeapMemory, Options, TmpFs};
use vfs::{
    Caller, DirEntry, DirSink, FileContext, FileSystem, FsContext, Mount, MountFlags, MountNamespace,
    NoDevices, OpenFile, RenameFlags, SetTime, Times, VfsPath, WalkFlags, XattrSet,
};

use crate::{Layers, OverlayFs};

pub(crate) fn tmpfs(dev: u64) -> Arc<TmpFs> {
    TmpFs::new(Options::new(dev), Arc::new(HeapMemory))
}

/// A mounted tree, and who works in it.
pub(crate) struct World {
    _ns: Arc<MountNamespace>,
    fs: FsContext,
    cred: Credentials,
}

/// Inode number, type and name.
pub(crate) type Listed = (u64, FileType, String);

struct All<'a>(&'a mut Vec<Listed>, usize);

impl DirSink for All<'_> {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        if self.1 == 0 {
            return false;
        }
        self.1 -= 1;
        let name = String::from_utf8_lossy(entry.name).into_owned();
        self.0.push((entry.ino, entry.kind.expect("a type"), name));
        true
    }
}

impl World {
    pub(crate) fn new(fs: Arc<dyn FileSystem>) -> Self {
        let ns = MountNamespace::new(Mount::new(fs, "none", MountFlags::empty()));
        let fs = FsContext::new(&ns);
        Self { _ns: ns, fs, cred: Credentials::root() }
    }

    pub(crate) fn cx(&self) -> FileContext<'_> {
        FileContext { cred: &self.cred, pid: 1, tid: 1 }
    }

    pub(crate) fn root(&self) -> Caller<'_> {
        Caller::new(&self.fs, self.cx())
    }

    pub(crate) fn open(&self, path: &str, flags: OpenFlags) -> vfs::Result<Arc<OpenFile>> {
        self.root().open(path.as_bytes(), flags, 0o644, WalkFlags::empty(), &NoDevices)
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.open(path, OpenFlags::WRONLY | OpenFlags::CREAT).expect(path);
        assert_eq!(file.write(&self.cx(), &mut SliceSource(bytes)), Ok(bytes.len()));
    }

    pub(crate) fn read(&self, file: &OpenFile) -> Vec<u8> {
        let mut sink = VecSink::new(1 << 20);
        file.pread(&self.cx(), 0, &mut sink).expect("a read");
        sink.bytes
    }

    pub(crate) fn get(&self, path: &str) -> vfs::Result<Vec<u8>> {
        Ok(self.read(&*self.open(path, OpenFlags::empty())?))
    }

    pub(crate) fn at(&self, path: &str) -> vfs::Result<VfsPath> {
        self.root().lookup(path.as_bytes(), WalkFlags::empty())
    }

    pub(crate) fn attr(&self, path: &str) -> vfs::Attr {
        self.at(path).and_then(|at| at.inode().attr()).expect(path)
    }

    pub(crate) fn mkdir(&self, path: &str) {
        self.root().mkdir(path.as_bytes(), 0o755).expect(path);
    }

    pub(crate) fn mv(&self, from: &str, to: &str, flags: RenameFlags) -> vfs::Result<()> {
        self.root().rename(from.as_bytes(), &self.root(), to.as_bytes(), flags)
    }

    /// A listing without `.` and `..`, `step` entries a call; numbers are those `stat` shows.
    pub(crate) fn list(&self, path: &str, step: usize) -> Vec<Listed> {
        let dir = self.open(path, OpenFlags::DIRECTORY).expect(path);
        let mut all = Vec::new();
        loop {
            let before = all.len();
            dir.read_dir(&self.cx(), &self.fs.root, &mut All(&mut all, step)).expect("a listing");
            if all.len() == before {
                break;
            }
        }
        all.retain(|(.., name)| name != "." && name != "..");
        for (ino, kind, name) in &all {
            let attr = self.attr(&format!("{path}/{name}"));
            assert_eq!((attr.ino, attr.kind), (*ino, *kind), "{path}/{name}");
        }
        all
    }

    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = self.list(path, 3).into_iter().map(|(.., name)| name).collect();
        names.sort();
        names
    }
}

/// Trees below, topmost first, and the file system changes go to.
pub(crate) struct Trees {
    pub(crate) lowers: Vec<Arc<TmpFs>>,
    pub(crate) upper: Arc<TmpFs>,
}

impl Trees {
    /// `make` fills each lower tree, topmost first.
    pub(crate) fn new(makes: &[&dyn Fn(&World)]) -> Self {
        let mut lowers = Vec::new();
        for (index, make) in makes.iter().enumerate() {
            let fs = tmpfs(index as u64 + 1);
            make(&World::new(Arc::clone(&fs) as Arc<dyn FileSystem>));
            lowers.push(fs);
        }
        Self { lowers, upper: tmpfs(100) }
    }

    /// The union, mounted anew: nothing is remembered but what is in the trees.
    pub(crate) fn mount(&self) -> World {
        let lowers = self.lowers.iter().map(|fs| fs.root()).collect();
        let layers = Layers::over(&*self.upper, lowers).expect("layers");
        World::new(OverlayFs::new(200, layers).expect("an overlay"))
    }
}

fn base(w: &World) {
    w.mkdir("/dir");
    w.mkdir("/dir/sub");
    w.put("/dir/a", b"lower a");
    w.put("/dir/b", b"lower b");
    w.put("/file", b"lower file");
    w.root().symlink(b"dir/a", b"/link").unwrap();
}

fn world() -> (Trees, World) {
    let trees = Trees::new(&[&base]);
    let world = trees.mount();
    (trees, world)
}

const WRITE: OpenFlags = OpenFlags::WRONLY;
const NONE: RenameFlags = RenameFlags::empty();

#[test]
fn what_is_below_is_seen_and_copied_before_it_is_written() {
    let (trees, w) = world();
    assert_eq!(w.get("/link").unwrap(), b"lower a");
    let before = w.attr("/dir/a");
    let f = w.open("/dir/a", WRITE).unwrap();
    assert_eq!(f.write(&w.cx(), &mut SliceSource(b"UPPER")), Ok(5));
    assert_eq!(w.get("/dir/a").unwrap(), b"UPPER a");
    assert_eq!(w.attr("/dir/a").ino, before.ino);
    let below = World::new(Arc::clone(&trees.lowers[0]) as Arc<dyn FileSystem>);
    assert_eq!(below.get("/dir/a").unwrap(), b"lower a");
    // All of it is in the trees.
    let again = trees.mount();
    assert_eq!(again.get("/dir/a").unwrap(), b"UPPER a");
    assert_eq!(again.attr("/dir/a").ino, before.ino);
    assert_eq!(again.names("/dir"), ["a", "b", "sub"]);
}

#[test]
fn a_copy_keeps_attributes_and_does_not_touch_its_parents() {
    let trees = Trees::new(&[&|w| {
        base(w);
        let a = w.at("/dir/a").unwrap();
        w.root().chown(&a, Some(7), Some(8)).unwrap();
        w.root().chmod(&a, 0o4751).unwrap();
        w.root().set_xattr(&a, b"user.k", b"v", XattrSet::Any).unwrap();
        let old = SetTime::At(abi::time::Timespec { sec: 1000, nsec: 5 });
        let times = Times { atime: Some(old), mtime: Some(old) };
        for path in ["/dir/a", "/dir/b", "/dir", "/"] {
            w.root().utimens(&w.at(path).unwrap(), times).unwrap();
        }
    }]);
    let w = trees.mount();
    let (dir, before) = (w.attr("/dir"), w.attr("/dir/a"));
    w.root().set_xattr(&w.at("/dir/a").unwrap(), b"user.n", b"w", XattrSet::Create).unwrap();
    let after = w.attr("/dir/a");
    assert_eq!(vfs::Attr { ctime: before.ctime, btime: None, ..after }, vfs::Attr { btime: None, ..before });
    assert_eq!(w.attr("/dir").mtime, dir.mtime);
    assert_eq!(w.attr("/dir").ino, dir.ino);
    let a = w.at("/dir/a").unwrap();
    assert_eq!(w.root().xattr(&a, b"user.k").unwrap(), b"v");
    assert_eq!(w.root().list_xattr(&a).unwrap(), b"user.k\0user.n\0");
    assert_eq!(w.root().xattr(&a, b"trusted.overlay.origin").unwrap_err(), Errno::EOPNOTSUPP);
    w.root().chmod(&w.at("/dir/b").unwrap(), 0o600).unwrap();
    assert_eq!(w.get("/dir/b").unwrap(), b"lower b");
    assert_eq!(w.attr("/dir/b").mtime.sec, 1000);
}

#[test]
fn removing_leaves_whiteouts_and_making_covers_them() {
    let (trees, w) = world();
    let r = w.root();
    r.unlink(b"/file").unwrap();
    assert_eq!(w.get("/file").unwrap_err(), Errno::ENOENT);
    assert_eq!(r.rmdir(b"/dir").unwrap_err(), Errno::ENOTEMPTY);
    r.unlink(b"/dir/a").unwrap();
    r.unlink(b"/dir/b").unwrap();
    r.rmdir(b"/dir/sub").unwrap();
    assert!(w.names("/dir").is_empty());
    r.rmdir(b"/dir").unwrap();
    assert_eq!(w.names("/"), ["link"]);
    w.mkdir("/dir");
    assert!(w.names("/dir").is_empty(), "a new directory shows nothing of the old");
    w.put("/dir/a", b"new");
    w.mkdir("/file");
    for w in [trees.mount(), w] {
        assert_eq!(w.names("/"), ["dir", "file", "link"]);
        assert_eq!(w.names("/dir"), ["a"]);
        assert!(w.names("/file").is_empty());
        assert_eq!(w.get("/dir/a").unwrap(), b"new");
    }
}

#[test]
fn the_guest_makes_no_whiteouts_and_sees_no_marks() {
    let (_trees, w) = world();
    let made = w.root().mknod(b"/w", FileType::CharDevice, 0o600, 0);
    assert_eq!(made.unwrap_err(), Errno::EPERM);
    w.root().mknod(b"/null", FileType::CharDevice, 0o666, abi::fs::make_dev(1, 3)).unwrap();
    assert_eq!(w.attr("/null").rdev, abi::fs::make_dev(1, 3));
    let dir = w.at("/dir").unwrap();
    let set = w.root().set_xattr(&dir, b"trusted.overlay.opaque", b"y", XattrSet::Any);
    assert_eq!(set.unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(w.mv("/file", "/f2", RenameFlags::WHITEOUT).unwrap_err(), Errno::EINVAL);
}

#[test]
fn layers_overrule_each_other_from_the_top() {
    let whiteout = |w: &World, path: &str| {
        w.root().mknod(path.as_bytes(), FileType::CharDevice, 0, 0).unwrap();
    };
    let trees = Trees::new(&[
        &|w| {
            w.mkdir("/dir");
            whiteout(w, "/dir/a");
            w.put("/dir/new", b"top");
            whiteout(w, "/gone");
            w.mkdir("/opaque");
            w.put("/opaque/x", b"top");
            let at = w.at("/opaque").unwrap();
            w.root().set_xattr(&at, b"trusted.overlay.opaque", b"y", XattrSet::Any).unwrap();
            w.put("/was_dir", b"a file now");
        },
        &|w| {
            base(w);
            w.mkdir("/gone");
            w.mkdir("/opaque");
            w.put("/opaque/y", b"bottom");
            w.mkdir("/was_dir");
            w.put("/was_dir/z", b"bottom");
        },
    ]);
    let w = trees.mount();
    assert_eq!(w.names("/"), ["dir", "file", "link", "opaque", "was_dir"]);
    assert_eq!(w.names("/dir"), ["b", "new", "sub"]);
    assert_eq!(w.names("/opaque"), ["x"]);
    assert_eq!(w.get("/was_dir").unwrap(), b"a file now");
    assert_eq!(w.get("/gone/..").unwrap_err(), Errno::ENOENT);
    // What is hidden by a lower whiteout needs none of ours, and does not come back.
    w.put("/dir/a", b"again");
    w.root().unlink(b"/dir/a").unwrap();
    w.mkdir("/gone");
    assert!(w.names("/gone").is_empty());
    w.root().unlink(b"/was_dir").unwrap();
    assert_eq!(trees.mount().names("/"), ["dir", "file", "gone", "link", "opaque"]);
}

#[test]
fn renames_leave_whiteouts_and_lower_directories_stay() {
    let (trees, w) = world();
    let ino = w.attr("/file").ino;
    w.mv("/file", "/dir/a", NONE).unwrap();
    assert_eq!(w.get("/dir/a").unwrap(), b"lower file");
    assert_eq!(w.attr("/dir/a").ino, ino);
    assert_eq!(w.mv("/dir", "/elsewhere", NONE).unwrap_err(), Errno::EXDEV);
    assert_eq!(w.mv("/dir/sub", "/sub", NONE).unwrap_err(), Errno::EXDEV);
    assert_eq!(w.mv("/dir/b", "/link", RenameFlags::NOREPLACE).unwrap_err(), Errno::EEXIST);
    w.mkdir("/own");
    w.put("/own/x", b"x");
    w.mkdir("/own/sub");
    // Over a whiteout, and over a lower directory emptied first.
    w.root().rmdir(b"/dir/sub").unwrap();
    w.mv("/own", "/dir/sub", NONE).unwrap();
    assert_eq!(w.names("/dir/sub"), ["sub", "x"]);
    w.mkdir("/own");
    w.mv("/own", "/file", NONE).unwrap();
    assert_eq!(w.mv("/file", "/dir/sub", NONE).unwrap_err(), Errno::ENOTEMPTY);
    w.mv("/dir/b", "/link", RenameFlags::EXCHANGE).unwrap();
    for w in [trees.mount(), w] {
        assert_eq!(w.names("/"), ["dir", "file", "link"]);
        assert_eq!(w.names("/dir"), ["a", "b", "sub"]);
        assert_eq!(w.get("/link").unwrap(), b"lower b");
        assert_eq!(w.root().readlink(b"/dir/b").unwrap(), b"dir/a");
        assert!(w.names("/file").is_empty());
    }
}

#[test]
fn a_directory_moved_over_an_empty_lower_one_is_opaque() {
    let trees = Trees::new(&[&|w| w.mkdir("/empty")]);
    let w = trees.mount();
    w.mkdir("/own");
    w.put("/own/x", b"x");
    let own = w.open("/empty", OpenFlags::DIRECTORY).unwrap();
    w.mv("/own", "/empty", NONE).unwrap();
    assert_eq!(w.names("/empty"), ["x"]);
    assert_eq!(own.inode().attr().unwrap().nlink, 0);
    assert_eq!(w.root().from(own.path()).mkdir(b"y", 0o755).unwrap_err(), Errno::ENOENT);
    assert_eq!(trees.mount().names("/empty"), ["x"]);
    assert_eq!(trees.mount().names("/"), ["empty"]);
}

#[test]
fn hard_links_below_come_apart_and_new_ones_stay_together() {
    let trees = Trees::new(&[&|w| {
        base(w);
        w.root().link(&w.at("/file").unwrap(), b"/twin").unwrap();
    }]);
    let w = trees.mount();
    assert_eq!(w.attr("/file").ino, w.attr("/twin").ino);
    assert_eq!(w.attr("/file").nlink, 2);
    w.put("/file", b"UPPER");
    assert_eq!(w.get("/file").unwrap(), b"UPPER file");
    assert_eq!(w.get("/twin").unwrap(), b"lower file");
    assert_ne!(w.attr("/file").ino, w.attr("/twin").ino);
    assert_eq!(w.attr("/file").nlink, 1);
    let ino = w.attr("/dir/a").ino;
    w.root().link(&w.at("/dir/a").unwrap(), b"/other").unwrap();
    w.put("/other", b"OTHER");
    for w in [&trees.mount(), &w] {
        assert_eq!(w.get("/dir/a").unwrap(), b"OTHER a");
        assert_eq!((w.attr("/dir/a").ino, w.attr("/other").ino), (ino, ino));
        assert_eq!(w.attr("/dir/a").nlink, 2);
    }
    w.root().unlink(b"/dir/a").unwrap();
    assert_eq!(w.attr("/other").nlink, 1);
    assert_eq!(w.names("/dir"), ["b", "sub"]);
}

#[test]
fn a_file_open_since_before_its_copy_shows_the_copy() {
    let (_trees, w) = world();
    let old = w.open("/file", OpenFlags::empty()).unwrap();
    assert_eq!(w.read(&old), b"lower file");
    w.put("/file", b"UPPER");
    assert_eq!(w.read(&old), b"UPPER file");
    assert!(Arc::ptr_eq(old.inode(), w.at("/file").unwrap().inode()));
}

#[test]
fn what_is_removed_lives_on_while_it_is_open() {
    let (_trees, w) = world();
    let file = w.open("/dir/a", OpenFlags::empty()).unwrap();
    let path = file.path().clone();
    w.root().unlink(b"/dir/a").unwrap();
    assert_eq!(w.read(&file), b"lower a");
    assert_eq!(file.inode().attr().unwrap().nlink, 0);
    w.root().chmod(&path, 0o600).unwrap();
    w.root().set_size(&path, 5).unwrap();
    assert_eq!(w.read(&file), b"lower");
    assert_eq!(file.inode().attr().unwrap().nlink, 0);
    assert_eq!(w.names("/dir"), ["b", "sub"]);
    w.put("/dir/a", b"another");
    assert_eq!(w.read(&file), b"lower");
    let flags = OpenFlags::RDWR | OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY;
    let unnamed = w.open("/dir", flags).unwrap();
    unnamed.write(&w.cx(), &mut SliceSource(b"named")).unwrap();
    w.root().unlink(b"/dir/b").unwrap();
    w.root().link(unnamed.path(), b"/dir/b").unwrap();
    assert_eq!(w.get("/dir/b").unwrap(), b"named");
}

#[test]
fn listings_go_on_while_names_vanish() {
    let trees = Trees::new(&[&|w| {
        for n in 0..200 {
            w.put(&format!("/l{n}"), b"");
        }
    }]);
    let w = trees.mount();
    for n in 0..200 {
        w.put(&format!("/u{n}"), b"");
    }
    w.put("/l7", b"copied");
    let dir = w.open("/", OpenFlags::DIRECTORY).unwrap();
    let mut removed = 0;
    loop {
        let mut some = Vec::new();
        dir.read_dir(&w.cx(), &w.fs.root, &mut All(&mut some, 10)).unwrap();
        some.retain(|(.., name)| name != "." && name != "..");
        if some.is_empty() {
            break;
        }
        for (.., name) in some {
            w.root().unlink(format!("/{name}").as_bytes()).unwrap();
            removed += 1;
        }
    }
    assert_eq!(removed, 400);
    assert!(w.names("/").is_empty());
}

#[test]
fn holes_stay_holes_and_big_files_come_whole() {
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let trees = Trees::new(&[&|w| {
        w.put("/f", b"");
        let f = w.open("/f", WRITE).unwrap();
        f.pwrite(&w.cx(), 1 << 20, &mut SliceSource(&bytes)).unwrap();
        w.root().set_size(f.path(), 1 << 24).unwrap();
    }]);
    let w = trees.mount();
    let f = w.open("/f", OpenFlags::RDWR).unwrap();
    let mut sink = VecSink::new(bytes.len());
    f.pread(&w.cx(), 1 << 20, &mut sink).unwrap();
    assert_eq!(sink.bytes, bytes);
    let attr = w.attr("/f");
    assert_eq!(attr.size, 1 << 24);
    assert!(attr.blocks * 512 < 1 << 20);
}

#[test]
fn a_failed_copy_leaves_nothing_behind() {
    let mut trees = Trees::new(&[&|w| w.put("/f", &[1; 40_000])]);
    trees.upper = TmpFs::new(Options { size: 16_384, ..Options::new(100) }, Arc::new(HeapMemory));
    let w = trees.mount();
    let free = trees.upper.statfs().unwrap();
    assert_eq!(w.open("/f", WRITE).unwrap_err(), Errno::ENOSPC);
    assert_eq!(trees.upper.statfs().unwrap(), free);
    assert_eq!(w.get("/f").unwrap(), [1; 40_000]);
    // But it can be truncated, which copies nothing.
    let f = w.open("/f", WRITE | OpenFlags::TRUNC).unwrap();
    f.write(&w.cx(), &mut SliceSource(b"short")).unwrap();
    assert_eq!(w.get("/f").unwrap(), b"short");
}

#[test]
fn threads_that_copy_the_same_file_get_one_copy() {
    for _ in 0..20 {
        let (trees, w) = world();
        std::thread::scope(|scope| {
            for n in 0..4u64 {
                let w = &w;
                scope.spawn(move || {
                    let f = w.open("/dir/a", WRITE).unwrap();
                    f.pwrite(&w.cx(), n, &mut SliceSource(b"#")).unwrap();
                    let name = format!("/dir/{n}");
                    w.put(&name, b"x");
                    w.mv(&name, &format!("/dir/sub/{n}"), NONE).unwrap();
                });
            }
        });
        assert_eq!(w.get("/dir/a").unwrap(), b"####r a");
        assert_eq!(trees.mount().names("/dir/sub"), ["0", "1", "2", "3"]);
        assert_eq!(trees.mount().names("/dir"), ["a", "b", "sub"]);
    }
}

/// All paths with what is there: type, number, links, contents.
fn everything(w: &World, path: &str, all: &mut Vec<String>) {
    for (ino, kind, name) in w.list(if path.is_empty() { "/" } else { path }, 5) {
        let child = format!("{path}/{name}");
        let nlink = w.attr(&child).nlink;
        let bytes = if kind == FileType::Regular { w.get(&child).expect(&child) } else { Vec::new() };
        all.push(format!("{child} {ino} {kind:?} {nlink} {bytes:?}"));
        if kind == FileType::Directory {
            everything(w, &child, all);
        }
    }
    all.sort();
}

#[test]
fn the_trees_hold_what_is_shown_whoever_was_at_work() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let trees = Trees::new(&[&|w| {
        for one in NAMES {
            w.mkdir(&format!("/{one}"));
            for two in NAMES {
                w.mkdir(&format!("/{one}/{two}"));
                for three in ["a", "b"] {
                    w.put(&format!("/{one}/{two}/{three}"), b"below");
                }
            }
        }
    }]);
    let w = trees.mount();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let w = &w;
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut next = |bound: u32| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 16) % bound
                };
                for _ in 0..1500 {
                    let mut path = || {
                        let depth = 1 + next(3);
                        (0..depth).map(|_| format!("/{}", NAMES[next(4) as usize])).collect::<String>()
                    };
                    let (one, two) = (path(), path());
                    let r = w.root();
                    let _ = match next(9) {
                        0 | 1 => r.mkdir(one.as_bytes(), 0o755).map(drop),
                        2 => w.open(&one, WRITE | OpenFlags::CREAT).map(|file| {
                            let _ = file.write(&w.cx(), &mut SliceSource(b"x"));
                        }),
                        3 => r.rmdir(one.as_bytes()),
                        4 => r.unlink(one.as_bytes()),
                        5 => w.at(&one).and_then(|at| r.link(&at, two.as_bytes())),
                        6 => w.at(&one).and_then(|at| r.chmod(&at, 0o700)),
                        7 => w.mv(&one, &two, NONE),
                        _ => w.mv(&one, &two, RenameFlags::EXCHANGE),
                    };
                }
            });
        }
    });
    let work = trees.upper.root().lookup(b"work").unwrap();
    let left = crate::work::entries(&work, &w.cx(), 0).unwrap();
    assert_eq!(left.len(), 1, "nothing but the whiteout");
    let (mut live, mut kept) = (Vec::new(), Vec::new());
    everything(&w, "", &mut live);
    everything(&trees.mount(), "", &mut kept);
    assert_eq!(live, kept);
}
