//! The VFS's operations, exercised on a tmpfs.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions};
use abi::mm::Prot;
use abi::poll::PollEvents;
use cred::Credentials;
use guestmem::{SliceSource, VecSink};
use memmap::MapRequest;
use vfs::watch::{Watch, WatchMask, Watcher};
use vfs::{
    Caller, DirEntry, DirSink, FdTable, FileContext, FsContext, Mount, MountFlags, MountNamespace, NewNode,
    NoDevices, OpenFile, RenameFlags, Seals, SeekFrom, SetTime, Times, VfsPath, WalkFlags, XattrSet, locks,
};

use crate::{HeapMemory, Options, TmpFs};

pub(crate) struct World {
    ns: Arc<MountNamespace>,
    pub(crate) fs: FsContext,
    pub(crate) root: Credentials,
    user: Credentials,
}

fn tmpfs(dev: u64) -> Arc<TmpFs> {
    TmpFs::new(Options::new(dev), Arc::new(HeapMemory))
}

impl World {
    pub(crate) fn new() -> Self {
        let ns = MountNamespace::new(Mount::new(tmpfs(1), "none", MountFlags::empty()));
        let fs = FsContext::new(&ns);
        Self { ns, fs, root: Credentials::root(), user: Credentials::user(1000, 1000) }
    }

    pub(crate) fn cx<'a>(&'a self, cred: &'a Credentials) -> FileContext<'a> {
        FileContext { cred, pid: 1, tid: 1 }
    }

    pub(crate) fn root(&self) -> Caller<'_> {
        Caller::new(&self.fs, self.cx(&self.root))
    }

    fn user(&self) -> Caller<'_> {
        Caller::new(&self.fs, self.cx(&self.user))
    }

    pub(crate) fn open(&self, path: &str, flags: OpenFlags) -> vfs::Result<Arc<OpenFile>> {
        self.root().open(path.as_bytes(), flags, 0o644, WalkFlags::empty(), &NoDevices)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.open(path, OpenFlags::WRONLY | OpenFlags::CREAT).unwrap();
        assert_eq!(file.write(&self.cx(&self.root), &mut SliceSource(bytes)), Ok(bytes.len()));
    }

    pub(crate) fn get(&self, path: &str) -> vfs::Result<Vec<u8>> {
        let file = self.open(path, OpenFlags::empty())?;
        let mut sink = VecSink::new(1 << 20);
        file.read(&self.cx(&self.root), &mut sink)?;
        Ok(sink.bytes)
    }
}

fn new_file() -> NewNode {
    let perm = Permissions::from_bits_truncate(0o644);
    NewNode { kind: FileType::Regular, perm, uid: 0, gid: 0, rdev: 0 }
}

pub(crate) fn follow(world: &World, path: &str) -> vfs::Result<VfsPath> {
    world.root().lookup(path.as_bytes(), WalkFlags::FOLLOW)
}

#[test]
fn a_walk_says_what_is_wrong_as_linux_does() {
    let w = World::new();
    w.root().mkdir(b"/d", 0o755).unwrap();
    w.put("/d/f", b"x");
    assert_eq!(follow(&w, "").unwrap_err(), Errno::ENOENT);
    assert_eq!(follow(&w, "/d/f/g").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(follow(&w, "/d/f/").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(follow(&w, "/d/missing/x").unwrap_err(), Errno::ENOENT);
    assert_eq!(follow(&w, &format!("/{}", "n".repeat(256))).unwrap_err(), Errno::ENAMETOOLONG);
    assert_eq!(follow(&w, &"/".repeat(4096)).unwrap_err(), Errno::ENAMETOOLONG);
    assert!(follow(&w, "/../..//d/./../d/f").is_ok());
    w.root().symlink(b"loop", b"/loop").unwrap();
    assert_eq!(follow(&w, "/loop").unwrap_err(), Errno::ELOOP);
    assert!(w.root().lookup(b"/loop", WalkFlags::empty()).is_ok());
}

#[test]
fn symbolic_links_are_followed_and_may_be_created_through() {
    let w = World::new();
    w.root().mkdir(b"/d", 0o755).unwrap();
    w.root().symlink(b"d/new", b"/link").unwrap();
    w.put("/link", b"through");
    assert_eq!(w.get("/d/new").unwrap(), b"through");
    let excl = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
    assert_eq!(w.open("/link", excl).unwrap_err(), Errno::EEXIST);
    assert_eq!(w.open("/link", OpenFlags::NOFOLLOW).unwrap_err(), Errno::ELOOP);
    assert_eq!(w.root().readlink(b"/link").unwrap(), b"d/new");
}

#[test]
fn permissions_are_checked_at_every_step() {
    let w = World::new();
    w.root().mkdir(b"/secret", 0o700).unwrap();
    w.put("/secret/f", b"x");
    assert_eq!(w.user().lookup(b"/secret/f", WalkFlags::FOLLOW).unwrap_err(), Errno::EACCES);
    assert_eq!(w.user().unlink(b"/secret/f").unwrap_err(), Errno::EACCES);
    w.put("/mine", b"x");
    // The root is sticky, and the file is another's.
    assert_eq!(w.user().unlink(b"/mine").unwrap_err(), Errno::EPERM);
    let path = follow(&w, "/mine").unwrap();
    assert_eq!(w.user().chmod(&path, 0o777).unwrap_err(), Errno::EPERM);
    w.root().chmod(&path, 0o4755).unwrap();
    w.root().chown(&path, Some(1000), None).unwrap();
    assert_eq!(path.inode().attr().unwrap().perm, Permissions::from_bits_truncate(0o755));
}

#[test]
fn names_are_made_and_removed() {
    let w = World::new();
    let r = w.root();
    r.mkdir(b"/d/", 0o777).unwrap();
    assert_eq!(r.mkdir(b"/d", 0o777).unwrap_err(), Errno::EEXIST);
    assert_eq!(r.mkdir(b"/", 0o777).unwrap_err(), Errno::EEXIST);
    w.put("/d/f", b"x");
    assert_eq!(r.rmdir(b"/d").unwrap_err(), Errno::ENOTEMPTY);
    assert_eq!(r.unlink(b"/d").unwrap_err(), Errno::EISDIR);
    assert_eq!(r.rmdir(b"/d/f").unwrap_err(), Errno::ENOTDIR);
    r.link(&follow(&w, "/d/f").unwrap(), b"/g").unwrap();
    assert_eq!(follow(&w, "/g").unwrap().inode().attr().unwrap().nlink, 2);
    let open = w.open("/d/f", OpenFlags::empty()).unwrap();
    r.unlink(b"/d/f").unwrap();
    assert_eq!(open.path().display(&w.fs.root), b"/d/f (deleted)");
    assert_eq!(follow(&w, "/d/f").unwrap_err(), Errno::ENOENT);
    let dir = w.open("/d", OpenFlags::DIRECTORY).unwrap();
    r.rmdir(b"/d").unwrap();
    assert_eq!(r.from(dir.path()).mkdir(b"x", 0o777).unwrap_err(), Errno::ENOENT);
}

#[test]
fn renames_keep_the_tree_a_tree() {
    let w = World::new();
    let r = w.root();
    let mv = |a: &str, b: &str, flags| r.rename(a.as_bytes(), &r, b.as_bytes(), flags);
    let none = RenameFlags::empty();
    r.mkdir(b"/a", 0o755).unwrap();
    r.mkdir(b"/a/b", 0o755).unwrap();
    w.put("/f", b"one");
    w.put("/g", b"two");
    assert_eq!(mv("/a", "/a/b/c", none).unwrap_err(), Errno::EINVAL);
    assert_eq!(mv("/f", "/a", none).unwrap_err(), Errno::EISDIR);
    assert_eq!(mv("/a", "/f", none).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(mv("/f", "/g", RenameFlags::NOREPLACE).unwrap_err(), Errno::EEXIST);
    mv("/f", "/g", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((w.get("/f").unwrap(), w.get("/g").unwrap()), (b"two".to_vec(), b"one".to_vec()));
    mv("/f", "/a/b/f", none).unwrap();
    let open = w.open("/a/b/f", OpenFlags::empty()).unwrap();
    mv("/a", "/z", none).unwrap();
    assert_eq!(open.path().display(&w.fs.root), b"/z/b/f");
    assert_eq!(follow(&w, "/f").unwrap_err(), Errno::ENOENT);
    assert_eq!(w.fs.root.inode().attr().unwrap().nlink, 3);
}

#[test]
fn a_file_made_during_a_rename_over_its_directory_is_not_lost() {
    for _ in 0..200 {
        let w = World::new();
        w.root().mkdir(b"/from", 0o755).unwrap();
        w.root().mkdir(b"/to", 0o755).unwrap();
        let to = w.open("/to", OpenFlags::DIRECTORY).unwrap();
        let moved = std::thread::scope(|scope| {
            let made = scope.spawn(|| to.inode().create(b"f", &new_file()));
            let moved = w.root().rename(b"/from", &w.root(), b"/to", RenameFlags::empty());
            (moved, made.join().unwrap().map(drop))
        });
        match moved {
            (Ok(()), Err(Errno::ENOENT)) => assert_eq!(follow(&w, "/from").unwrap_err(), Errno::ENOENT),
            (Err(Errno::ENOTEMPTY), Ok(())) => assert_eq!(w.get("/to/f").unwrap(), b""),
            other => panic!("{other:?}"),
        }
    }
}

/// Compares what the dentries say of a directory with what its inode says.
fn check_cache(at: &VfsPath, names: &[&str]) {
    for name in names {
        let cached = at.dentry.lookup(name.as_bytes());
        let real = at.inode().lookup(name.as_bytes());
        match (cached, real) {
            (Ok(dentry), Ok(inode)) => {
                assert!(Arc::ptr_eq(dentry.inode(), &inode), "{name}");
                assert!(!dentry.is_unlinked(), "{name}");
                assert_eq!(*dentry.name(), *name.as_bytes());
                assert!(Arc::ptr_eq(&dentry.parent().unwrap(), &at.dentry), "{name}");
                if inode.kind() == FileType::Directory {
                    check_cache(&VfsPath { dentry, mount: Arc::clone(&at.mount) }, names);
                }
            }
            (Err(Errno::ENOENT), Err(Errno::ENOENT)) => {}
            (cached, real) => panic!("{name}: {cached:?} {:?}", real.map(drop)),
        }
    }
}

#[test]
fn what_is_cached_is_what_is_there_whoever_was_at_work() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let w = World::new();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let w = &w;
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut next = |bound: u32| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 16) % bound
                };
                for _ in 0..3000 {
                    let mut path = || {
                        let depth = 1 + next(3);
                        (0..depth).map(|_| format!("/{}", NAMES[next(4) as usize])).collect::<String>()
                    };
                    let (one, two) = (path(), path());
                    let r = w.root();
                    let _ = match next(7) {
                        0 | 1 => r.mkdir(one.as_bytes(), 0o755).map(drop),
                        2 => w.open(&one, OpenFlags::WRONLY | OpenFlags::CREAT).map(drop),
                        3 => r.rmdir(one.as_bytes()),
                        4 => r.unlink(one.as_bytes()),
                        5 => r.rename(one.as_bytes(), &r, two.as_bytes(), RenameFlags::empty()),
                        _ => r.rename(one.as_bytes(), &r, two.as_bytes(), RenameFlags::EXCHANGE),
                    };
                }
            });
        }
    });
    check_cache(&w.fs.root, &NAMES);
}

#[test]
fn exchanges_of_directories_keep_the_counts() {
    let w = World::new();
    for path in ["/a", "/b", "/a/d", "/b/e"] {
        w.root().mkdir(path.as_bytes(), 0o755).unwrap();
    }
    w.put("/b/f", b"x");
    let nlink = |path: &str| follow(&w, path).unwrap().inode().attr().unwrap().nlink;
    w.root().rename(b"/a/d", &w.root(), b"/b/f", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((nlink("/a"), nlink("/b")), (2, 4));
    w.root().rename(b"/b/f", &w.root(), b"/b/e", RenameFlags::empty()).unwrap();
    assert_eq!(nlink("/b"), 3);
    w.root().rename(b"/b/e", &w.root(), b"/a/e", RenameFlags::WHITEOUT).unwrap();
    assert_eq!((nlink("/a"), nlink("/b")), (3, 2));
    assert_eq!(follow(&w, "/b/e").unwrap().inode().kind(), FileType::CharDevice);
}

#[test]
fn mounts_are_crossed_both_ways() {
    let w = World::new();
    w.root().mkdir(b"/m", 0o755).unwrap();
    w.put("/m/below", b"x");
    let at = follow(&w, "/m").unwrap();
    w.ns.attach(Mount::new(tmpfs(2), "two", MountFlags::empty()), &at).unwrap();
    assert_eq!(follow(&w, "/m/below").unwrap_err(), Errno::ENOENT);
    w.put("/m/f", b"above");
    let f = follow(&w, "/m/f").unwrap();
    assert_eq!(f.display(&w.fs.root), b"/m/f");
    assert_eq!(w.root().link(&f, b"/g").unwrap_err(), Errno::EXDEV);
    assert_eq!(w.root().rmdir(b"/m").unwrap_err(), Errno::EBUSY);
    assert_eq!(follow(&w, "/m/..").unwrap(), w.fs.root);
    f.mount.set_flags(MountFlags::RDONLY);
    assert_eq!(w.root().unlink(b"/m/f").unwrap_err(), Errno::EROFS);
    let (copy, _) = w.ns.copy();
    assert_eq!(copy.mounts().len(), 2);
    w.ns.detach(&follow(&w, "/m").unwrap(), false).unwrap();
    assert_eq!(w.get("/m/below").unwrap(), b"x");
}

#[test]
fn data_is_sparse_and_grows_past_the_heap() {
    let w = World::new();
    let f = w.open("/f", OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
    let cx = w.cx(&w.root);
    let big: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    assert_eq!(f.pwrite(&cx, 1 << 20, &mut SliceSource(&big)), Ok(big.len()));
    assert_eq!(f.seek(SeekFrom::Data(0)), Ok(1 << 20));
    assert_eq!(f.seek(SeekFrom::Hole(0)), Ok(0));
    let mut sink = VecSink::new(big.len());
    f.pread(&cx, 1 << 20, &mut sink).unwrap();
    assert_eq!(sink.bytes, big);
    w.root().set_size(f.path(), 10).unwrap();
    w.root().set_size(f.path(), 20).unwrap();
    assert_eq!(w.get("/f").unwrap(), vec![0; 20]);
    assert_eq!(f.seek(SeekFrom::End(-5)), Ok(15));
    assert_eq!(f.seek(SeekFrom::Current(-16)).unwrap_err(), Errno::EINVAL);
}

#[test]
fn the_size_limit_is_kept_and_given_back() {
    let options = Options { size: 8 * abi::PAGE_SIZE, ..Options::new(3) };
    let mount = Mount::new(TmpFs::new(options, Arc::new(HeapMemory)), "small", MountFlags::empty());
    let w = World { ns: MountNamespace::new(Arc::clone(&mount)), ..World::new() };
    let w = World { fs: FsContext::new(&w.ns), ..w };
    let f = w.open("/f", OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
    let bytes = vec![1; 10 * abi::PAGE_SIZE as usize];
    assert_eq!(f.write(&w.cx(&w.root), &mut SliceSource(&bytes)), Ok(8 * abi::PAGE_SIZE as usize));
    assert_eq!(f.write(&w.cx(&w.root), &mut SliceSource(b"x")).unwrap_err(), Errno::ENOSPC);
    w.root().unlink(b"/f").unwrap();
    drop(f);
    assert_eq!(mount.fs().statfs().unwrap().bfree, 8);
}

#[derive(Default)]
pub(crate) struct Names(pub(crate) Vec<String>, pub(crate) usize);

impl DirSink for Names {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        if self.0.len() == self.1 {
            return false;
        }
        self.0.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    }
}

#[test]
fn listings_go_on_where_they_stopped() {
    let w = World::new();
    for n in 0..100 {
        w.put(&format!("/f{n}"), b"");
    }
    let dir = w.open("/", OpenFlags::DIRECTORY).unwrap();
    let mut all = Vec::new();
    loop {
        let mut names = Names(Vec::new(), 7);
        dir.read_dir(&w.cx(&w.root), &w.fs.root, &mut names).unwrap();
        if names.0.is_empty() {
            break;
        }
        all.append(&mut names.0);
    }
    assert_eq!(all.len(), 102);
    assert_eq!(all.first().map(String::as_str), Some("."));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 102);
}

#[test]
fn descriptors_are_the_lowest_free_ones() {
    let w = World::new();
    w.put("/f", b"hello");
    let table = FdTable::new();
    let f = w.open("/f", OpenFlags::empty()).unwrap();
    for want in 0..3 {
        assert_eq!(table.insert(Arc::clone(&f), want == 1, 0, 4), Ok(want));
    }
    table.remove(1).unwrap();
    assert_eq!(table.insert(Arc::clone(&f), true, 0, 4), Ok(1));
    assert_eq!(table.insert(Arc::clone(&f), false, 0, 4), Ok(3));
    assert_eq!(table.insert(Arc::clone(&f), false, 0, 4).unwrap_err(), Errno::EMFILE);
    let fork = table.fork();
    assert_eq!(table.take_cloexec().len(), 1);
    assert_eq!(table.get(1).unwrap_err(), Errno::EBADF);
    assert_eq!(fork.numbers(), [0, 1, 2, 3]);
    assert_eq!(fork.remove_range(1..=u32::MAX).len(), 3);
}

#[test]
fn appends_unnamed_files_and_attributes_work() {
    let w = World::new();
    w.put("/f", b"one");
    let a = w.open("/f", OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
    a.write(&w.cx(&w.root), &mut SliceSource(b"two")).unwrap();
    assert_eq!(w.get("/f").unwrap(), b"onetwo");
    let tmp = w.open("/", OpenFlags::RDWR | OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY).unwrap();
    assert_eq!(tmp.inode().attr().unwrap().nlink, 0);
    w.root().link(tmp.path(), b"/named").unwrap();
    assert_eq!(follow(&w, "/named").unwrap().inode().attr().unwrap().nlink, 1);
    let f = follow(&w, "/f").unwrap();
    w.root().set_xattr(&f, b"user.a", b"v", XattrSet::Create).unwrap();
    assert_eq!(w.root().set_xattr(&f, b"user.a", b"v", XattrSet::Create).unwrap_err(), Errno::EEXIST);
    assert_eq!(w.user().xattr(&f, b"user.a").unwrap(), b"v");
    assert_eq!(w.root().list_xattr(&f).unwrap(), b"user.a\0");
}

#[test]
fn locks_conflict_split_and_go_with_their_description() {
    let w = World::new();
    w.put("/f", b"x");
    let a = w.open("/f", OpenFlags::empty()).unwrap();
    let inode = Arc::clone(a.inode());
    let record = |pid, exclusive, start, end| locks::Record {
        owner: locks::Owner::Process(pid),
        exclusive,
        start,
        end,
    };
    let take = |r| locks::acquire(&inode, locks::Family::Record, r).unwrap().is_none();
    assert!(take(record(1, true, 0, 99)));
    assert!(!take(record(2, false, 50, 50)));
    locks::release(&inode, locks::Family::Record, locks::Owner::Process(1), 40, 60).unwrap();
    assert!(take(record(2, true, 40, 60)));
    assert!(!take(record(1, true, 0, 99)));
    let whole = locks::Record { owner: locks::Owner::Description(a.id()), ..record(0, true, 0, u64::MAX) };
    assert!(locks::acquire(&inode, locks::Family::Flock, whole).unwrap().is_none());
    let other = locks::Record { owner: locks::Owner::Description(1), ..whole };
    assert!(locks::acquire(&inode, locks::Family::Flock, other).unwrap().is_some());
    drop(a);
    assert!(locks::acquire(&inode, locks::Family::Flock, other).unwrap().is_none());
    locks::release_all(&inode, locks::Owner::Process(1));
    assert!(take(record(3, true, 61, 99)));
    assert_eq!(
        locks::test(&inode, locks::Family::Record, &record(4, false, 0, u64::MAX)),
        Ok(Some(record(2, true, 40, 60)))
    );
}

#[test]
fn who_waits_for_a_lock_is_told_whatever_happened_before() {
    let w = World::new();
    w.put("/f", b"x");
    let a = w.open("/f", OpenFlags::empty()).unwrap();
    let flock = |owner, exclusive| {
        let record =
            locks::Record { owner: locks::Owner::Description(owner), exclusive, start: 0, end: u64::MAX };
        locks::acquire(a.inode(), locks::Family::Flock, record).unwrap().is_none()
    };
    let unlock = |owner| locks::release_all(a.inode(), locks::Owner::Description(owner));
    assert!(flock(1, true));
    let queue = locks::wait_queue(a.inode()).unwrap();
    // Before the waiter stands in it, the lock changes hands.
    unlock(1);
    assert!(flock(2, true));
    let parker = sync::wait::Parker::new();
    let _waiter = queue.register(Arc::clone(&parker) as _, PollEvents::OUT);
    assert!(!flock(3, false));
    assert!(!flock(4, false));
    let soon = || Some(std::time::Instant::now() + std::time::Duration::from_millis(1));
    assert_eq!(parker.park(soon()), sync::wait::Wake::TimedOut, "attempts wake nobody");
    assert!(flock(2, false));
    assert_eq!(parker.park(None), sync::wait::Wake::Notified);
    assert!(flock(3, false));
}

#[test]
fn deep_trees_die_without_recursion() {
    let w = World::new();
    let mut at = w.fs.root.clone();
    for _ in 0..20_000 {
        at = w.root().from(&at).mkdir(b"d", 0o755).unwrap();
    }
    drop(at);
    drop(w);
}

fn memfd(w: &World, mode: u16, seals: Seals) -> (Arc<TmpFs>, Arc<OpenFile>) {
    let fs = tmpfs(9);
    let node = NewNode { perm: Permissions::from_bits_truncate(mode), ..new_file() };
    let inode = fs.memfd(&node, seals).unwrap();
    let file = inode.open(&w.cx(&w.root), OpenFlags::RDWR).unwrap();
    (fs, OpenFile::anonymous(inode, b"/memfd:test (deleted)", file, OpenFlags::RDWR))
}

#[test]
fn seals_hold() {
    let w = World::new();
    let cx = w.cx(&w.root);
    let (_fs, f) = memfd(&w, 0o777, Seals::empty());
    f.write(&cx, &mut SliceSource(b"12345")).unwrap();
    assert_eq!(f.path().display(&w.fs.root), b"/memfd:test (deleted)");
    assert_eq!(f.inode().attr().unwrap().nlink, 0);
    f.add_seals(Seals::GROW).unwrap();
    assert_eq!(f.pwrite(&cx, 3, &mut SliceSource(b"xyz")).unwrap_err(), Errno::EPERM);
    assert_eq!(f.pwrite(&cx, 2, &mut SliceSource(b"xyz")), Ok(3));
    assert_eq!(w.root().set_size(f.path(), 6).unwrap_err(), Errno::EPERM);
    assert_eq!(f.file().allocate(1, 0, 6).unwrap_err(), Errno::EPERM);
    w.root().set_size(f.path(), 4).unwrap();
    f.add_seals(Seals::SHRINK | Seals::WRITE).unwrap();
    assert_eq!(w.root().set_size(f.path(), 3).unwrap_err(), Errno::EPERM);
    assert_eq!(f.pwrite(&cx, 0, &mut SliceSource(b"x")).unwrap_err(), Errno::EPERM);
    assert_eq!(f.file().allocate(3, 0, 1).unwrap_err(), Errno::EPERM);
    f.add_seals(Seals::SEAL).unwrap();
    assert_eq!(f.add_seals(Seals::FUTURE_WRITE).unwrap_err(), Errno::EPERM);
    assert_eq!(f.seals(), Ok(Seals::SEAL | Seals::SHRINK | Seals::GROW | Seals::WRITE));
    w.put("/f", b"x");
    let named = w.open("/f", OpenFlags::WRONLY).unwrap();
    assert_eq!((named.seals(), named.add_seals(Seals::GROW)), (Ok(Seals::SEAL), Err(Errno::EPERM)));
    assert_eq!(w.open("/f", OpenFlags::empty()).unwrap().add_seals(Seals::GROW), Err(Errno::EPERM));
    assert_eq!(w.open("/", OpenFlags::DIRECTORY).unwrap().seals(), Err(Errno::EINVAL));
}

#[test]
fn a_file_that_is_executed_is_sealed_whole() {
    let w = World::new();
    let (_fs, f) = memfd(&w, 0o777, Seals::empty());
    f.add_seals(Seals::EXEC).unwrap();
    assert_eq!(f.seals().unwrap(), Seals::all() - Seals::SEAL);
    assert_eq!(w.root().chmod(f.path(), 0o666).unwrap_err(), Errno::EPERM);
    assert_eq!(w.root().chmod(f.path(), 0o711), Ok(()));
    let (_fs, f) = memfd(&w, 0o666, Seals::EXEC);
    assert_eq!(w.root().chmod(f.path(), 0o777).unwrap_err(), Errno::EPERM);
    f.add_seals(Seals::GROW).unwrap();
}

#[test]
fn what_is_mapped_to_be_written_cannot_be_sealed() {
    let w = World::new();
    let (_fs, f) = memfd(&w, 0o777, Seals::empty());
    w.root().set_size(f.path(), abi::PAGE_SIZE).unwrap();
    let request = |shared, max_prot| MapRequest { offset: 0, len: abi::PAGE_SIZE, shared, max_prot };
    let (mut mapping, private) = (f.mappable().unwrap(), f.mappable().unwrap());
    // There is no host here, so that nothing comes to be mapped; the attempt counts while it lasts.
    assert_eq!(mapping.backing(request(true, Prot::all())).unwrap_err(), Errno::ENODEV);
    assert_eq!(private.backing(request(false, Prot::all())).unwrap_err(), Errno::ENODEV);
    assert_eq!(f.add_seals(Seals::WRITE), Err(Errno::EBUSY));
    f.add_seals(Seals::FUTURE_WRITE).unwrap();
    drop(std::mem::replace(&mut mapping, f.mappable().unwrap()));
    f.add_seals(Seals::WRITE).unwrap();
    // The memory manager asks with its own lock held.
    let vmas = sync::Mutex::<sync::order::Vmas, _>::new(());
    let held = vmas.lock();
    assert_eq!(private.shared_limit(), Prot::READ | Prot::EXEC);
    drop((held, mapping));
    assert_eq!(private.backing(request(true, Prot::all())).unwrap_err(), Errno::EPERM);
    assert_eq!(private.backing(request(true, Prot::READ)).unwrap_err(), Errno::ENODEV);
}

#[test]
fn appenders_lose_nothing_and_do_not_mix() {
    let w = World::new();
    w.put("/f", b"");
    std::thread::scope(|scope| {
        for byte in 1..4u8 {
            let w = &w;
            scope.spawn(move || {
                let file = w.open("/f", OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
                for _ in 0..5 {
                    let bytes = vec![byte; 150_000];
                    assert_eq!(file.write(&w.cx(&w.root), &mut SliceSource(&bytes)), Ok(bytes.len()));
                }
            });
        }
    });
    let mut sink = VecSink::new(10_000_000);
    w.open("/f", OpenFlags::empty()).unwrap().read(&w.cx(&w.root), &mut sink).unwrap();
    assert_eq!(sink.bytes.len(), 15 * 150_000);
    assert!(sink.bytes.chunks(150_000).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
}

#[test]
fn what_a_mapping_may_have_written_is_no_hole() {
    let w = World::new();
    let f = w.open("/f", OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
    w.root().set_size(f.path(), 1 << 20).unwrap();
    assert_eq!(f.seek(SeekFrom::Data(0)).unwrap_err(), Errno::ENXIO);
    let request = MapRequest { offset: 0, len: abi::PAGE_SIZE, shared: true, max_prot: Prot::all() };
    let _ = f.mappable().unwrap().backing(request);
    assert_eq!(f.seek(SeekFrom::Data(5)), Ok(5));
    assert_eq!(f.seek(SeekFrom::Hole(5)), Ok(1 << 20));
}

#[test]
fn access_times_follow_what_was_changed_since() {
    let w = World::new();
    w.put("/f", b"x");
    w.root().symlink(b"f", b"/l").unwrap();
    let old = SetTime::At(abi::time::Timespec { sec: 1000, nsec: 0 });
    let atime = |path: &str| w.root().lookup(path.as_bytes(), WalkFlags::empty()).unwrap().inode().attr();
    let atime = |path: &str| atime(path).unwrap().atime.sec;
    let age = |path: &str| {
        let at = w.root().lookup(path.as_bytes(), WalkFlags::empty()).unwrap();
        w.root().utimens(&at, Times { atime: Some(old), mtime: None }).unwrap();
    };
    for path in ["/f", "/l", "/"] {
        age(path);
        assert_eq!(atime(path), 1000);
    }
    w.open("/f", OpenFlags::NOATIME).map(|f| f.read(&w.cx(&w.root), &mut VecSink::new(9))).unwrap().unwrap();
    assert_eq!(atime("/f"), 1000);
    let ctime = follow(&w, "/f").unwrap().inode().attr().unwrap().ctime;
    w.get("/l").unwrap();
    w.open("/", OpenFlags::DIRECTORY)
        .unwrap()
        .read_dir(&w.cx(&w.root), &w.fs.root, &mut Names(vec![], 99))
        .unwrap();
    for path in ["/f", "/l", "/"] {
        assert!(atime(path) > 1000, "{path}");
    }
    assert_eq!(follow(&w, "/f").unwrap().inode().attr().unwrap().ctime, ctime);
    age("/f");
    w.fs.root.mount.set_flags(MountFlags::NOATIME);
    w.get("/f").unwrap();
    assert_eq!(atime("/f"), 1000);
}

/// Writes down what it hears: token, event, name.
#[derive(Default)]
struct Recorder(std::sync::Mutex<Vec<(i32, WatchMask, u32, String)>>);

impl Watcher for Recorder {
    fn event(&self, token: i32, what: WatchMask, cookie: u32, name: &[u8]) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0.lock().unwrap().push((token, what, cookie, name));
    }
}

impl Recorder {
    fn take(&self) -> Vec<(i32, WatchMask, String)> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        let mut cookies = events.iter().map(|(_, _, cookie, _)| *cookie).filter(|cookie| *cookie != 0);
        assert_eq!(cookies.next(), cookies.next(), "both halves of a rename");
        events.into_iter().map(|(token, what, _, name)| (token, what, name)).collect()
    }
}

#[test]
fn watchers_hear_what_happens() {
    use WatchMask as M;
    let w = World::new();
    let r = w.root();
    r.mkdir(b"/d", 0o755).unwrap();
    r.mkdir(b"/e", 0o755).unwrap();
    w.put("/d/f", b"x");
    let recorder = Arc::new(Recorder::default());
    let heard = |expected: &[(i32, WatchMask, &str)]| {
        let expected: Vec<_> = expected.iter().map(|(t, m, n)| (*t, *m, (*n).to_owned())).collect();
        assert_eq!(recorder.take(), expected);
    };
    let watch = |path: &str, token| {
        let inode = Arc::clone(follow(&w, path).unwrap().inode());
        Watch::new(&inode, Arc::downgrade(&recorder) as std::sync::Weak<dyn Watcher>, token)
    };
    let (_d, _e, f) = (watch("/d", 1), watch("/e", 2), watch("/d/f", 3));
    w.put("/d/f", b"yz");
    let both = |what| [(1, what, "f"), (3, what, "")];
    heard(&[both(M::OPEN), both(M::MODIFY), both(M::CLOSE_WRITE)].concat());
    w.get("/d/f").unwrap();
    heard(&[both(M::OPEN), both(M::ACCESS), both(M::CLOSE_NOWRITE)].concat());
    r.chmod(&follow(&w, "/d/f").unwrap(), 0o600).unwrap();
    r.truncate(&follow(&w, "/d/f").unwrap(), 0).unwrap();
    heard(&[both(M::ATTRIB), both(M::MODIFY)].concat());
    r.link(&follow(&w, "/d/f").unwrap(), b"/e/g").unwrap();
    heard(&[(3, M::ATTRIB, ""), (2, M::CREATE, "g")]);
    r.rename(b"/e/g", &r, b"/d/h", RenameFlags::empty()).unwrap();
    heard(&[(2, M::MOVED_FROM, "g"), (1, M::MOVED_TO, "h"), (3, M::MOVE_SELF, "")]);
    r.mkdir(b"/d/s", 0o755).unwrap();
    r.rmdir(b"/d/s").unwrap();
    heard(&[(1, M::CREATE | M::ISDIR, "s"), (1, M::DELETE | M::ISDIR, "s")]);
    r.unlink(b"/d/h").unwrap();
    heard(&[(3, M::ATTRIB, ""), (1, M::DELETE, "h")]);
    let open = OpenFile::new(follow(&w, "/d/f").unwrap(), file_of(&w, "/d/f"), OpenFlags::RDWR);
    r.unlink(b"/d/f").unwrap();
    heard(&[(3, M::ATTRIB, ""), (1, M::DELETE, "f")]);
    drop(open);
    let gone = M::CLOSE_WRITE | M::EXCL_UNLINK;
    heard(&[(1, gone, "f"), (3, M::CLOSE_WRITE, ""), (3, M::DELETE_SELF, "")]);
    drop(f);
    let _e2 = watch("/e", 4);
    r.rmdir(b"/e").unwrap();
    heard(&[(2, M::DELETE_SELF | M::ISDIR, ""), (4, M::DELETE_SELF | M::ISDIR, "")]);
}

fn file_of(w: &World, path: &str) -> Arc<dyn vfs::File> {
    follow(w, path).unwrap().inode().open(&w.cx(&w.root), OpenFlags::RDWR).unwrap()
}

#[test]
fn processes_that_would_wait_for_each_other_are_told() {
    let w = World::new();
    w.put("/f", b"x");
    let inode = Arc::clone(follow(&w, "/f").unwrap().inode());
    let record =
        |pid, at| locks::Record { owner: locks::Owner::Process(pid), exclusive: true, start: at, end: at };
    let attempt =
        |waiting: &mut locks::Waiting, record| match locks::acquire(&inode, locks::Family::Record, record)
            .unwrap()
        {
            Some(locks::Conflict(held)) => waiting.behind(&held),
            None => panic!("free"),
        };
    // Numbers no other test uses: all processes of a test run share the list.
    let [a, b, c] = [9001, 9002, 9003];
    let wait = |pid| locks::Waiting::new(&inode, locks::Owner::Process(pid));
    for (pid, at) in [(a, 1), (b, 2), (c, 3)] {
        assert!(locks::acquire(&inode, locks::Family::Record, record(pid, at)).unwrap().is_none());
    }
    let (mut wa, mut wb, mut wc) = (wait(a), wait(b), wait(c));
    assert_eq!(attempt(&mut wa, record(a, 2)), Ok(()));
    assert_eq!(attempt(&mut wb, record(b, 3)), Ok(()));
    assert_eq!(attempt(&mut wc, record(c, 1)), Err(Errno::EDEADLK));
    // Whoever gives up, or gives something back, is not waited for any more.
    drop(wb);
    assert_eq!(attempt(&mut wc, record(c, 1)), Ok(()));
    locks::release(&inode, locks::Family::Record, locks::Owner::Process(a), 1, 1).unwrap();
    let mut wb = wait(b);
    assert_eq!(attempt(&mut wb, record(b, 3)), Ok(()));
}

#[test]
fn mounts_are_moved_and_bound_with_what_is_in_them() {
    let w = World::new();
    for path in ["/a", "/a/b", "/c", "/d"] {
        w.root().mkdir(path.as_bytes(), 0o755).unwrap();
    }
    let at = |path: &str| follow(&w, path).unwrap();
    w.ns.attach(Mount::new(tmpfs(2), "two", MountFlags::empty()), &at("/a/b")).unwrap();
    w.put("/a/b/f", b"x");
    w.ns.attach(Mount::new(tmpfs(3), "three", MountFlags::empty()), &at("/d")).unwrap();
    assert_eq!(w.ns.move_mount(&at("/a"), &at("/c")), Err(Errno::EINVAL), "no mount");
    w.ns.bind_tree(&at("/a"), &at("/c")).unwrap();
    assert_eq!(w.get("/c/b/f").unwrap(), b"x");
    assert_eq!(w.ns.mounts().len(), 5, "what is elsewhere is not bound");
    w.ns.detach(&at("/c/b"), false).unwrap();
    assert_eq!(w.get("/a/b/f").unwrap(), b"x");
    assert_eq!(w.ns.move_mount(&at("/a/b"), &at("/a/b/f")), Err(Errno::EINVAL), "onto a file");
    w.root().mkdir(b"/a/b/in", 0o755).unwrap();
    assert_eq!(w.ns.move_mount(&at("/a/b"), &at("/a/b/in")), Err(Errno::ELOOP));
    w.ns.move_mount(&at("/a/b"), &at("/d")).unwrap();
    assert_eq!(w.get("/d/f").unwrap(), b"x");
    assert_eq!(follow(&w, "/a/b/f").unwrap_err(), Errno::ENOENT);
    assert_eq!(at("/d/in").display(&w.fs.root), b"/d/in");
    w.ns.detach(&at("/d"), false).unwrap();
    assert_eq!(follow(&w, "/d/f").unwrap_err(), Errno::ENOENT, "the one below is back");
    assert_eq!(w.ns.mounts().len(), 3);
}
