//! A mount over a real Gofer and a temporary directory.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions};
use abi::mm::Prot;
use cred::Credentials;
use gofer::{Attach, Config, Confinement};
use guestmem::{SliceSink, SliceSource};
use memmap::{Backing, MapRequest};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tempfile::TempDir;
use vfs::{
    DirEntry, DirSink, File, FileContext, FileSystem, Inode, NewNode, RenameFlags, SeekFrom, SetAttr,
    XattrSet,
};

use crate::{Client, GoferFs, MountOptions, SocketTransport, Transport};

/// Counts the messages.
struct Counting {
    inner: SocketTransport,
    calls: Arc<AtomicUsize>,
}

impl Transport for Counting {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.exchange(request, reply)
    }
}

struct Bed {
    dir: TempDir,
    fs: Arc<GoferFs>,
    calls: Arc<AtomicUsize>,
    gofer: JoinHandle<Result<(), gofer::GoferError>>,
}

impl Bed {
    fn new(exclusive: bool) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = OwnedFd::from(std::fs::File::open(dir.path()).expect("opens"));
        let proc_fd = Config::open_proc_fd().expect("procfs");
        let mut config = Config::new(vec![Attach { root, readonly: false }], proc_fd);
        config.confinement = Confinement::None;
        let calls = Arc::new(AtomicUsize::new(0));
        let (mut transports, mut sockets) = (Vec::<Box<dyn Transport>>::new(), Vec::new());
        for _ in 0..3 {
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                    .expect("socketpair");
            let (inner, calls) = (SocketTransport::new(ours), Arc::clone(&calls));
            transports.push(Box::new(Counting { inner, calls }));
            sockets.push(theirs);
        }
        let gofer = std::thread::spawn(|| gofer::serve(config, sockets));
        let client = Client::new(transports).expect("connections");
        let options = MountOptions { attachment: 0, dev: 77, exclusive };
        let fs = GoferFs::mount(client, options).expect("mounts");
        Self { dir, fs, calls, gofer }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Messages sent while `work` ran.
    fn calls(&self, work: impl FnOnce()) -> usize {
        let before = self.calls.load(Ordering::Relaxed);
        work();
        self.calls.load(Ordering::Relaxed) - before
    }

    /// Everything must have been dropped: then the Gofer ends.
    fn end(self) {
        drop(self.fs);
        self.gofer.join().expect("no panic").expect("no error");
    }
}

fn new_node(kind: FileType, perm: u16) -> NewNode {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    NewNode { kind, perm: Permissions::from_bits_truncate(perm), uid, gid, rdev: 0 }
}

fn with_context<T>(work: impl FnOnce(&FileContext<'_>) -> T) -> T {
    let cred = Credentials::root();
    work(&FileContext { cred: &cred, pid: 1, tid: 1 })
}

fn open(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Arc<dyn File> {
    with_context(|cx| inode.open(cx, flags)).expect("opens")
}

fn read(file: &Arc<dyn File>, offset: u64, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    let got = with_context(|cx| file.read(cx, offset, &mut SliceSink::new(&mut buffer)));
    buffer.truncate(got.expect("reads"));
    buffer
}

fn write(file: &Arc<dyn File>, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
    with_context(|cx| file.write(cx, offset, &mut SliceSource(bytes)))
}

#[test]
fn files_are_created_written_read_and_appended_to() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    let inode = root.create(b"f", &new_node(FileType::Regular, 0o640)).expect("creates");
    assert_eq!(root.create(b"f", &new_node(FileType::Regular, 0o640)).err(), Some(Errno::EEXIST));
    assert_eq!(std::fs::metadata(bed.path("f")).expect("stat").mode() & 0o7777, 0o640);
    // The descriptor of the creation serves the first open.
    let mut file = None;
    assert_eq!(bed.calls(|| file = Some(open(&inode, OpenFlags::RDWR))), 0);
    let file = file.expect("a file");
    let big: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(bed.calls(|| assert_eq!(write(&file, 5, &big), Ok(300_000))), 0);
    assert_eq!(read(&file, 5, 400_000), big);
    assert_eq!(read(&file, 0, 5), [0; 5]);
    assert_eq!(read(&file, 300_005, 9), []);
    let appended = with_context(|cx| file.append(cx, &mut SliceSource(b"end")));
    assert_eq!(appended, Ok((3, 300_008)));
    assert_eq!(inode.attr().expect("attributes").size, 300_008);
    assert_eq!(file.seek(7, SeekFrom::End(-8)), Ok(300_000));
    assert_eq!(file.seek(7, SeekFrom::Current(-8)), Err(Errno::EINVAL));
    assert_eq!(file.seek(7, SeekFrom::Current(i64::MAX)), Err(Errno::EOVERFLOW));
    assert_eq!(file.seek(0, SeekFrom::Data(400_000)), Err(Errno::ENXIO));
    assert_eq!(file.seek(0, SeekFrom::Hole(10)), Ok(300_008));
    assert_eq!(file.fsync(false), Ok(()));
    assert_eq!(bed.fs.sync(), Ok(()));
    drop((file, inode, root));
    bed.end();
}

#[test]
fn a_file_opened_for_reading_cannot_be_written_or_mapped_for_it() {
    let bed = Bed::new(true);
    std::fs::write(bed.path("f"), b"text").expect("write");
    let inode = bed.fs.root().lookup(b"f").expect("finds");
    let file = open(&inode, OpenFlags::empty());
    assert_eq!(write(&file, 0, b"x"), Err(Errno::EBADF));
    let request = MapRequest { offset: 0, len: 4096, shared: true, max_prot: Prot::READ };
    let prot = |file: &Arc<dyn File>| match file.mappable().expect("maps").backing(request) {
        Ok(Backing::Host { object, offset: 0 }) => {
            assert!(nix::sys::stat::fstat(object.as_fd()).is_ok());
            object.max_prot()
        }
        other => panic!("{other:?}"),
    };
    assert!(!prot(&file).contains(Prot::WRITE));
    let writable = open(&inode, OpenFlags::RDWR);
    assert!(prot(&writable).contains(Prot::WRITE));
    let identity = writable.mappable().expect("maps").identity();
    assert_eq!((identity.dev, identity.ino), (77, inode.attr().expect("attr").ino));
    drop((file, writable, inode));
    bed.end();
}

#[test]
fn attributes_are_kept_until_something_changes() {
    let bed = Bed::new(true);
    std::fs::write(bed.path("f"), b"text").expect("write");
    let root = bed.fs.root();
    let inode = root.lookup(b"f").expect("finds");
    assert_eq!(bed.calls(|| assert_eq!(inode.attr().expect("attr").size, 4)), 0);
    let change = SetAttr { size: Some(9), ..SetAttr::default() };
    assert_eq!(inode.set_attr(&change), Ok(()));
    assert_eq!(inode.attr().expect("attr").size, 9);
    // Through an open file it changes without a message, and is seen without one.
    let file = open(&inode, OpenFlags::WRONLY);
    assert_eq!(
        bed.calls(|| {
            write(&file, 20, b"x").expect("writes");
            assert_eq!(inode.attr().expect("attr").size, 21);
        }),
        0
    );
    drop(file);
    assert_eq!(inode.attr().expect("attr").size, 21);
    // Another name of it changes its links, whichever inode was asked.
    root.link(b"g", &inode).expect("links");
    assert_eq!(inode.attr().expect("attr").nlink, 2);
    let same = root.lookup(b"g").expect("finds");
    assert!(Arc::ptr_eq(&inode, &same), "one inode a file");
    root.unlink(b"f").expect("unlinks");
    assert_eq!(same.attr().expect("attr").nlink, 1);
    drop((root, inode, same));
    bed.end();
}

#[test]
fn a_file_that_is_read_again_and_again_is_opened_once() {
    let bed = Bed::new(true);
    std::fs::write(bed.path("f"), b"text").expect("write");
    let root = bed.fs.root();
    let inode = root.lookup(b"f").expect("finds");
    let once = || {
        assert_eq!(inode.attr().expect("attr").size, 4);
        assert_eq!(read(&open(&inode, OpenFlags::empty()), 0, 9), b"text");
    };
    assert_eq!(bed.calls(once), 1);
    assert_eq!(bed.calls(|| (0..5).for_each(|_| once())), 0);
    // What is written is seen all the same, and a removed file gives its room back.
    write(&open(&inode, OpenFlags::WRONLY), 4, b"!").expect("writes");
    assert_eq!(inode.attr().expect("attr").size, 5);
    root.unlink(b"f").expect("unlinks");
    assert_eq!(bed.calls(|| drop(open(&inode, OpenFlags::empty()))), 1);
    drop((root, inode));
    bed.end();
}

#[test]
fn a_shared_mount_sees_what_others_do() {
    let bed = Bed::new(false);
    assert!(!bed.fs.caches_lookups());
    std::fs::write(bed.path("f"), b"text").expect("write");
    let inode = bed.fs.root().lookup(b"f").expect("finds");
    std::fs::write(bed.path("f"), b"longer text").expect("write");
    assert_eq!(inode.attr().expect("attr").size, 11);
    drop(inode);
    bed.end();
}

#[test]
fn an_unlinked_file_can_still_be_opened_and_changed() {
    let bed = Bed::new(true);
    std::fs::write(bed.path("f"), b"text").expect("write");
    let root = bed.fs.root();
    let inode = root.lookup(b"f").expect("finds");
    root.unlink(b"f").expect("unlinks");
    assert_eq!(root.lookup(b"f").err(), Some(Errno::ENOENT));
    let file = open(&inode, OpenFlags::RDWR);
    assert_eq!(read(&file, 0, 10), b"text");
    assert_eq!(inode.attr().expect("attr").nlink, 0);
    drop((root, inode, file));
    bed.end();
}

#[test]
fn an_unnamed_file_can_be_given_a_name() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    let inode = match root.create_unnamed(&new_node(FileType::Regular, 0o600)) {
        // A temporary directory on a file system without them.
        Err(Errno::EOPNOTSUPP) => return,
        other => other.expect("creates"),
    };
    assert_eq!(inode.attr().expect("attr").nlink, 0);
    let file = open(&inode, OpenFlags::RDWR);
    assert_eq!(write(&file, 0, b"text"), Ok(4));
    assert_eq!(root.link(b"named", &inode), Ok(()));
    assert_eq!(std::fs::read(bed.path("named")).expect("read"), b"text");
    drop((root, inode, file));
    bed.end();
}

#[derive(Default)]
struct Names {
    names: Vec<Vec<u8>>,
    room: usize,
}

impl DirSink for Names {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.names.push(entry.name.to_vec());
        true
    }
}

#[test]
fn directories_are_listed_in_pieces_of_any_size() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    let dir = root.create(b"d", &new_node(FileType::Directory, 0o755)).expect("mkdir");
    for index in 0..2000 {
        std::fs::write(bed.path(&format!("d/file{index}")), b"").expect("write");
    }
    let file = open(&dir, OpenFlags::DIRECTORY);
    for room in [7, 100_000] {
        let (mut names, mut position) = (Names::default(), 0);
        loop {
            let before = names.names.len();
            names.room = room;
            position = with_context(|cx| file.read_dir(cx, position, &mut names)).expect("lists");
            if names.names.len() == before {
                break;
            }
        }
        assert_eq!(names.names.len(), 2000);
        names.names.sort();
        names.names.dedup();
        assert_eq!(names.names.len(), 2000);
    }
    assert_eq!(root.rmdir(b"d"), Err(Errno::ENOTEMPTY));
    let opened = with_context(|cx| dir.open(cx, OpenFlags::RDWR).err());
    assert_eq!(opened, Some(Errno::EISDIR));
    drop((root, dir, file));
    bed.end();
}

#[test]
fn names_are_moved_and_links_read() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    let dir = root.create(b"d", &new_node(FileType::Directory, 0o755)).expect("mkdir");
    let uid = nix::unistd::getuid().as_raw();
    let link = root.symlink(b"l", b"d/../x", uid, nix::unistd::getgid().as_raw());
    let link = link.expect("symlink");
    assert_eq!((link.kind(), link.readlink()), (FileType::Symlink, Ok(b"d/../x".to_vec())));
    assert_eq!(root.rename(b"l", &dir, b"m", RenameFlags::empty()), Ok(()));
    assert_eq!(std::fs::read_link(bed.path("d/m")).expect("readlink").as_os_str(), "d/../x");
    assert_eq!(root.rename(b"l", &dir, b"m", RenameFlags::empty()), Err(Errno::ENOENT));
    assert_eq!(root.rename(b"d", &root, b"e", RenameFlags::WHITEOUT), Err(Errno::EINVAL));
    let device = new_node(FileType::BlockDevice, 0o600);
    assert_eq!(root.create(b"sda", &device).err(), Some(Errno::EPERM));
    let any: &dyn Any = &*link;
    assert!(any.is::<crate::inode::GoferInode>());
    drop((root, dir, link));
    bed.end();
}

/// Arguments the Gofer would end the connection for are refused before they are sent.
#[test]
fn bad_arguments_do_not_break_the_connection() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    for _ in 0..6 {
        assert_eq!(root.lookup(b"..").err(), Some(Errno::EINVAL));
        assert_eq!(root.lookup(b"a/b").err(), Some(Errno::EINVAL));
        assert_eq!(root.lookup(&[b'x'; 256]).err(), Some(Errno::ENAMETOOLONG));
        assert_eq!(root.symlink(b"s", b"", 0, 0).err(), Some(Errno::EINVAL));
        assert_eq!(root.set_xattr(b"", b"", XattrSet::Any), Err(Errno::EINVAL));
        assert_eq!(root.set_xattr(b"user.x", &[0; 70_000], XattrSet::Any), Err(Errno::EINVAL));
    }
    for _ in 0..6 {
        assert_eq!(root.lookup(b"nothing").err(), Some(Errno::ENOENT));
    }
    drop(root);
    bed.end();
}

/// More threads than connections, on the same few files: what is kept afterwards is what the host has.
#[test]
fn kept_attributes_are_right_after_a_storm() {
    let bed = Bed::new(true);
    let root = bed.fs.root();
    let names: Vec<String> = (0..4).map(|index| format!("f{index}")).collect();
    for name in &names {
        root.create(name.as_bytes(), &new_node(FileType::Regular, 0o600)).expect("creates");
    }
    std::thread::scope(|scope| {
        for thread in 0..5u16 {
            let (root, names) = (&root, &names);
            scope.spawn(move || {
                for turn in 0..60u16 {
                    let name = &names[usize::from(thread + turn) % names.len()];
                    let inode = root.lookup(name.as_bytes()).expect("finds");
                    let perm = Permissions::from_bits_truncate(0o600 | (turn & 0o77));
                    match turn % 4 {
                        0 => {
                            let change = SetAttr { perm: Some(perm), ..SetAttr::default() };
                            inode.set_attr(&change).expect("sets");
                        }
                        1 => {
                            let file = open(&inode, OpenFlags::WRONLY);
                            write(&file, u64::from(turn) * 10, b"x").expect("writes");
                        }
                        2 => {
                            let other = format!("link{thread}");
                            root.link(other.as_bytes(), &inode).expect("links");
                            assert!(inode.attr().expect("attr").nlink >= 2);
                            root.unlink(other.as_bytes()).expect("unlinks");
                        }
                        _ => assert!(inode.attr().expect("attr").nlink >= 1),
                    }
                }
            });
        }
    });
    for name in &names {
        let inode = root.lookup(name.as_bytes()).expect("finds");
        for _ in 0..2 {
            let (attr, meta) = (inode.attr().expect("attr"), std::fs::metadata(bed.path(name)));
            let meta = meta.expect("stat");
            assert_eq!((attr.nlink, attr.size), (1, meta.len()));
            assert_eq!(u32::from(attr.perm.bits()), meta.mode() & 0o7777);
            assert_eq!((attr.ctime.sec, attr.ctime.nsec), (meta.ctime(), meta.ctime_nsec()));
        }
    }
    drop(root);
    bed.end();
}

/// A guest that looks at many files holds as many nodes as it holds inodes.
#[test]
fn nodes_are_given_back() {
    let bed = Bed::new(true);
    for index in 0..100 {
        let path = bed.path(&format!("f{index}"));
        std::fs::write(&path, b"").expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    }
    let root = bed.fs.root();
    let held = || {
        std::fs::read_dir("/proc/self/fd")
            .expect("procfs")
            .filter_map(|fd| {
                std::fs::read_link(fd.ok()?.path()).ok().filter(|path| path.starts_with(bed.dir.path()))
            })
            .count()
    };
    let before = held();
    for _ in 0..5 {
        for index in 0..100 {
            root.lookup(format!("f{index}").as_bytes()).expect("finds");
        }
    }
    assert!(held() <= before + 20, "{} nodes", held());
    drop(root);
    bed.end();
}

#[test]
fn a_gofer_that_is_gone_is_eio() {
    struct Dead;
    impl Transport for Dead {
        fn exchange(&mut self, _: &[u8], _: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
            Err(Errno::EPIPE)
        }
    }
    let client = Client::new(vec![Box::new(Dead)]).expect("a connection");
    let options = MountOptions { attachment: 0, dev: 1, exclusive: true };
    assert_eq!(GoferFs::mount(client, options).err(), Some(Errno::EIO));
    assert_eq!(Client::new(Vec::new()).err(), Some(Errno::EINVAL));
}

/// Lists the root; the names as they came.
fn names(root: &Arc<dyn Inode>) -> Vec<Vec<u8>> {
    let mut names = Names { names: Vec::new(), room: usize::MAX };
    let dir = open(root, OpenFlags::empty());
    with_context(|cx| dir.read_dir(cx, 0, &mut names)).expect("lists");
    names.names
}

#[test]
fn what_was_listed_is_looked_up_ahead() {
    let bed = Bed::new(true);
    for i in 0..200 {
        std::fs::write(bed.path(&format!("f{i}")), "x".repeat(i)).expect("writes");
    }
    let root = bed.fs.root();
    let mut names = names(&root);
    names.sort_unstable();
    assert_eq!(names.len(), 200);
    let look = |name: &Vec<u8>| {
        let size: u64 = std::str::from_utf8(&name[1..]).expect("ours").parse().expect("a number");
        let attr = root.lookup(name).expect("there").attr().expect("known");
        assert_eq!(attr.size, size);
    };
    let calls = bed.calls(|| names.iter().for_each(look));
    assert!(calls < 40, "{calls} messages for 200 names, with those that close what is dropped");
    // In any other order it is right, too; what a change may have made wrong is asked again.
    let calls = bed.calls(|| names.iter().rev().for_each(look));
    assert!(calls >= 200, "each name was taken");
    root.unlink(b"f7").expect("goes");
    assert_eq!(root.lookup(b"f7").err(), Some(Errno::ENOENT));
    drop(root);
    bed.end();
}

#[test]
fn a_change_makes_what_was_looked_up_ahead_stale() {
    let bed = Bed::new(true);
    for name in ["a", "b", "c", "d", "e", "f"] {
        std::fs::write(bed.path(name), "x").expect("writes");
    }
    let root = bed.fs.root();
    let mut names = names(&root);
    names.sort_unstable();
    let first = root.lookup(&names[0]).expect("there");
    root.unlink(&names[1]).expect("goes");
    assert_eq!(root.lookup(&names[1]).err(), Some(Errno::ENOENT));
    assert!(root.lookup(&names[2]).is_ok());
    drop((first, root));
    bed.end();
}

#[test]
fn a_mount_that_others_change_is_asked_each_time() {
    let bed = Bed::new(false);
    for name in ["a", "b", "c", "d", "e", "f"] {
        std::fs::write(bed.path(name), "x").expect("writes");
    }
    let root = bed.fs.root();
    let names = names(&root);
    root.lookup(&names[0]).expect("there");
    std::fs::remove_file(bed.path("b")).expect("goes");
    assert_eq!(root.lookup(b"b").err(), Some(Errno::ENOENT));
    drop(root);
    bed.end();
}
