//! A Gofer over a temporary directory, asked through its socket.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread::JoinHandle;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::time::Timespec;
use gofer_proto::{
    MAX_MESSAGE, Name, NodeAttr, NodeId, Ownership, RemoveKind, RenameFlags, Request, Response, SetAttr,
    SetTime, XattrFlags,
};
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use tempfile::TempDir;

mod jail;

use crate::{Attach, Config, Confinement, GoferError, serve};

struct Client {
    socket: OwnedFd,
    last: u64,
}

impl Client {
    fn call(&mut self, request: &Request<'_>) -> (Response, Option<OwnedFd>) {
        self.last += 1;
        let mut bytes = Vec::new();
        request.encode(self.last, &mut bytes).expect("encodes");
        hostsys::file::send_message(self.socket.as_fd(), &bytes, None).expect("sends");
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut got = hostsys::file::receive_message(self.socket.as_fd(), &mut buffer).expect("receives");
        let (id, response) = Response::decode(&buffer[..got.len]).expect("decodes");
        assert_eq!(id, self.last);
        assert!(got.fds.len() <= 1);
        (response, got.fds.pop())
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Response, Errno> {
        match self.call(request) {
            (Response::Error(errno), None) => Err(errno),
            (response, None) => Ok(response),
            (response, Some(_)) => panic!("a descriptor with {response:?}"),
        }
    }

    fn file(&mut self, request: &Request<'_>) -> Result<std::fs::File, Errno> {
        match self.call(request) {
            (Response::Error(errno), None) => Err(errno),
            (_, Some(fd)) => Ok(fd.into()),
            (response, None) => panic!("no descriptor with {response:?}"),
        }
    }

    fn root(&mut self, index: u32) -> NodeAttr {
        node(self.ask(&Request::Mount { index }))
    }

    fn walk(&mut self, dir: NodeId, names: &[&str]) -> (Vec<NodeAttr>, Option<Errno>) {
        let names = names.iter().map(|name| self::name(name)).collect();
        match self.ask(&Request::WalkStat { dir, names }) {
            Ok(Response::Walk { nodes, stop }) => (nodes, stop),
            other => panic!("{other:?}"),
        }
    }

    fn find(&mut self, dir: NodeId, names: &[&str]) -> NodeAttr {
        let (nodes, stop) = self.walk(dir, names);
        assert_eq!((nodes.len(), stop), (names.len(), None));
        *nodes.last().expect("a name")
    }

    fn open(&mut self, node: NodeId, flags: OpenFlags) -> Result<std::fs::File, Errno> {
        self.file(&Request::Open { node, flags })
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a name")
}

fn node(answer: Result<Response, Errno>) -> NodeAttr {
    match answer {
        Ok(Response::Node(node)) => node,
        other => panic!("{other:?}"),
    }
}

fn me() -> Ownership {
    Ownership { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
}

/// A Gofer with attachments: the directory writable, and the same read-only.
struct Bed {
    dir: TempDir,
    client: Client,
    other: Client,
    gofer: JoinHandle<Result<(), GoferError>>,
}

impl Bed {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let attach = |readonly| Attach { root: handle(dir.path()), readonly };
        let proc_fd = Config::open_proc_fd().expect("procfs");
        let mut config = Config::new(vec![attach(false), attach(true)], proc_fd);
        config.confinement = Confinement::None;
        configure(&mut config);
        let (client, server) = pair();
        let (other, other_server) = pair();
        let gofer = std::thread::spawn(|| serve(config, vec![server, other_server]));
        let [client, other] = [client, other].map(|socket| Client { socket, last: 0 });
        Self { dir, client, other, gofer }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn end(self) {
        drop((self.client, self.other));
        self.gofer.join().expect("no panic").expect("no error");
    }
}

fn handle(path: &Path) -> OwnedFd {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).expect("opens")
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("socketpair")
}

#[test]
fn walks_are_batched_and_stop_where_they_must() {
    let mut bed = Bed::new();
    std::fs::create_dir_all(bed.path("a/b")).expect("mkdir");
    std::fs::write(bed.path("a/b/file"), b"text").expect("write");
    symlink("b", bed.path("a/link")).expect("symlink");
    let root = bed.client.root(0).node;
    let file = bed.client.find(root, &["a", "b", "file"]);
    assert_eq!((file.attr.file_type(), file.attr.stat().size), (FileType::Regular, 4));
    let (nodes, stop) = bed.client.walk(root, &["a", "nothing", "file"]);
    assert_eq!((nodes.len(), stop), (1, Some(Errno::ENOENT)));
    let (nodes, stop) = bed.client.walk(root, &["a", "b", "file", "below"]);
    assert_eq!((nodes.len(), stop), (3, Some(Errno::ENOTDIR)));
    let (nodes, stop) = bed.client.walk(root, &["a", "link", "file"]);
    assert_eq!((nodes.len(), stop), (2, None));
    assert_eq!(nodes[1].attr.file_type(), FileType::Symlink);
    let target = bed.client.ask(&Request::Readlink { node: nodes[1].node });
    assert_eq!(target, Ok(Response::Bytes(b"b".to_vec())));
    bed.end();
}

#[test]
fn symbolic_links_are_handles_of_themselves() {
    let mut bed = Bed::new();
    symlink("/etc/passwd", bed.path("absolute")).expect("symlink");
    symlink("..", bed.path("up")).expect("symlink");
    symlink("/", bed.path("slash")).expect("symlink");
    symlink("/proc/self/root", bed.path("magic")).expect("symlink");
    let root = bed.client.root(0).node;
    for link in ["absolute", "up", "slash", "magic"] {
        let found = bed.client.find(root, &[link]);
        assert_eq!(found.attr.file_type(), FileType::Symlink);
        let opened = bed.client.open(found.node, OpenFlags::empty());
        assert_eq!(opened.err(), Some(Errno::ELOOP));
        let (nodes, stop) = bed.client.walk(root, &[link, "etc"]);
        assert_eq!((nodes.len(), stop), (1, None));
        let (nodes, stop) = bed.client.walk(found.node, &["etc"]);
        assert_eq!((nodes.len(), stop), (0, Some(Errno::ENOTDIR)));
        let create =
            Request::Create { dir: root, name: name(link), flags: OpenFlags::RDWR, mode: 0o644, owner: me() };
        assert_eq!(bed.client.file(&create).err(), Some(Errno::EEXIST));
        let create = Request::Mkdir { dir: found.node, name: name("x"), mode: 0o755, owner: me() };
        assert_eq!(bed.client.ask(&create), Err(Errno::ENOTDIR));
        let chmod = SetAttr { mode: Some(0o777), ..SetAttr::default() };
        let chmod = Request::SetStat { node: found.node, changes: chmod };
        assert_eq!(bed.client.ask(&chmod), Err(Errno::EOPNOTSUPP));
    }
    bed.end();
}

/// The name is put into the bytes after encoding, where the types no longer guard it.
#[test]
fn dot_dot_and_slashes_end_the_connection() {
    for bad in [&b".."[..], b"./", b"/e", b"a\0"] {
        let mut bed = Bed::new();
        let root = bed.client.root(0).node;
        let mut bytes = Vec::new();
        let request = Request::WalkStat { dir: root, names: vec![name("xx")] };
        request.encode(9, &mut bytes).expect("encodes");
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(bad);
        hostsys::file::send_message(bed.client.socket.as_fd(), &bytes, None).expect("sends");
        let got = hostsys::file::receive_message(bed.client.socket.as_fd(), &mut [0; 64]);
        assert_eq!(got.expect("receives").len, 0, "closed");
        // The other connection, and the nodes, live on.
        assert!(matches!(bed.other.ask(&Request::Stat { node: root }), Ok(Response::Attr(_))));
        bed.end();
    }
}

#[test]
fn a_descriptor_from_the_peer_ends_the_connection() {
    let bed = Bed::new();
    let mut bytes = Vec::new();
    Request::Mount { index: 0 }.encode(1, &mut bytes).expect("encodes");
    let socket = bed.client.socket.as_fd();
    hostsys::file::send_message(socket, &bytes, Some(socket)).expect("sends");
    assert_eq!(hostsys::file::receive_message(socket, &mut [0; 64]).expect("receives").len, 0);
    bed.end();
}

/// A directory is moved out of the tree, and swapped with a symbolic link, while walks go on: no walk
/// ever finds what lies beside the root.
#[test]
fn renames_under_a_walk_do_not_let_it_out() {
    let mut bed = Bed::with(|config| {
        config.attachments.remove(0);
    });
    std::fs::create_dir_all(bed.path("jail/sub")).expect("mkdir");
    std::fs::write(bed.path("secret"), b"").expect("write");
    symlink("..", bed.path("jail/link")).expect("symlink");
    let root = bed.client.root(0).node;
    let jail = bed.client.find(root, &["jail"]).node;
    let base = bed.dir.path().to_owned();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&stop);
    let racer = std::thread::spawn(move || {
        let path = |name: &str| base.join(name);
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            for (from, to) in [
                ("jail/sub", "jail/tmp"),
                ("jail/link", "jail/sub"),
                ("jail/sub", "jail/link"),
                ("jail/tmp", "jail/sub"),
                ("jail/sub", "moved"),
                ("moved", "jail/sub"),
            ] {
                std::fs::rename(path(from), path(to)).expect("rename");
            }
        }
    });
    for _ in 0..2000 {
        let (nodes, stop) = bed.client.walk(jail, &["sub", "secret"]);
        let link = nodes.first().is_some_and(|n| n.attr.file_type() == FileType::Symlink);
        assert!(nodes.len() < 2);
        assert!(link || stop == Some(Errno::ENOENT), "{stop:?}");
        let nodes = nodes.iter().map(|n| n.node).collect();
        bed.client.ask(&Request::Close { nodes }).expect("closes");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().expect("racer");
    bed.end();
}

#[test]
fn read_only_refuses_every_change() {
    let mut bed = Bed::new();
    std::fs::write(bed.path("file"), b"text").expect("write");
    let root = bed.client.root(1).node;
    let file = bed.client.find(root, &["file"]).node;
    let (dir, n, owner, mode) = (root, name("new"), me(), 0o644);
    let flags = OpenFlags::RDWR;
    let changes = SetAttr { size: Some(0), ..SetAttr::default() };
    let requests = [
        Request::SetStat { node: file, changes },
        Request::Open { node: file, flags: OpenFlags::WRONLY },
        Request::Open { node: file, flags: OpenFlags::RDWR },
        Request::Open { node: file, flags: OpenFlags::TRUNC },
        Request::Create { dir, name: n, flags, mode, owner },
        Request::Create { dir, name: n, flags: OpenFlags::empty(), mode, owner },
        Request::CreateUnnamed { dir, mode, owner },
        Request::Mkdir { dir, name: n, mode, owner },
        Request::Mknod { dir, name: n, file_type: FileType::Regular, mode, owner },
        Request::Symlink { dir, name: n, target: b"x", owner },
        Request::Link { node: file, dir, name: n },
        Request::Unlink { dir, name: name("file"), kind: RemoveKind::File },
        Request::Rename {
            from_dir: dir,
            from: name("file"),
            to_dir: dir,
            to: n,
            flags: RenameFlags::empty(),
        },
        Request::SetXattr { node: file, name: b"user.a", value: b"", flags: XattrFlags::empty() },
        Request::RemoveXattr { node: file, name: b"user.a" },
    ];
    for request in &requests {
        let refused = (Response::Error(Errno::EROFS), None);
        let (response, fd) = bed.client.call(request);
        assert_eq!((response, fd.map(drop)), refused, "{request:?}");
    }
    // What was donated cannot be written either.
    let mut read = bed.client.open(file, OpenFlags::empty()).expect("opens");
    assert!(std::io::Write::write(&mut read, b"x").is_err());
    assert_eq!(std::fs::read(bed.path("file")).expect("read"), b"text");
    // Between attachments there are no links and no renames.
    let writable = bed.client.root(0).node;
    let link = Request::Link { node: file, dir: writable, name: n };
    assert_eq!(bed.client.ask(&link), Err(Errno::EXDEV));
    bed.end();
}

#[test]
fn files_are_created_opened_and_outlive_their_names() {
    use std::io::{Read, Seek, Write};
    let mut bed = Bed::new();
    let root = bed.client.root(0).node;
    let create =
        Request::Create { dir: root, name: name("new"), flags: OpenFlags::RDWR, mode: 0o6751, owner: me() };
    let mut made = bed.client.file(&create).expect("creates");
    assert_eq!(bed.client.file(&create).err(), Some(Errno::EEXIST));
    made.write_all(b"hello").expect("write");
    let meta = std::fs::metadata(bed.path("new")).expect("stat");
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o6751, 5));
    let found = bed.client.find(root, &["new"]);
    assert_eq!(found.attr.stat().ino, meta.ino());
    let unlink = Request::Unlink { dir: root, name: name("new"), kind: RemoveKind::File };
    assert_eq!(bed.client.ask(&unlink), Ok(Response::Done));
    let mut again = bed.client.open(found.node, OpenFlags::RDWR).expect("opens the unlinked");
    let mut text = String::new();
    again.read_to_string(&mut text).expect("read");
    assert_eq!(text, "hello");
    let changes = SetAttr { size: Some(2), ..SetAttr::default() };
    let attr = bed.client.ask(&Request::SetStat { node: found.node, changes });
    assert!(matches!(attr, Ok(Response::Attr(a)) if a.stat().size == 2 && a.stat().nlink == 0));
    made.rewind().expect("seek");
    text.clear();
    made.read_to_string(&mut text).expect("read");
    assert_eq!(text, "he");
    let truncate = bed.client.open(found.node, OpenFlags::WRONLY | OpenFlags::TRUNC);
    assert_eq!(truncate.expect("opens").metadata().expect("stat").len(), 0);
    bed.end();
}

#[test]
fn only_regular_files_are_opened() {
    let mut bed = Bed::with(|config| config.special_files = true);
    let root = bed.client.root(0).node;
    let owner = me();
    let mut special = |name, file_type| {
        let request = Request::Mknod { dir: root, name, file_type, mode: 0o644, owner };
        self::node(bed.client.ask(&request)).node
    };
    let fifo = special(name("fifo"), FileType::Fifo);
    let socket = special(name("socket"), FileType::Socket);
    let regular = special(name("regular"), FileType::Regular);
    for flags in [OpenFlags::empty(), OpenFlags::RDWR] {
        assert_eq!(bed.client.open(fifo, flags).err(), Some(Errno::ENXIO));
        assert_eq!(bed.client.open(socket, flags).err(), Some(Errno::ENXIO));
        assert_eq!(bed.client.open(root, flags).err(), Some(Errno::EISDIR));
        assert!(bed.client.open(regular, flags).is_ok());
    }
    bed.end();
}

#[test]
fn devices_are_opened_only_when_configured() {
    for devices in [false, true] {
        let mut bed = Bed::with(|config| {
            config.devices = devices;
            config.attachments.push(Attach { root: handle(Path::new("/dev/null")), readonly: false });
        });
        let null = bed.client.root(2);
        assert_eq!(null.attr.file_type(), FileType::CharDevice);
        let opened = bed.client.open(null.node, OpenFlags::RDWR);
        assert_eq!(opened.err(), (!devices).then_some(Errno::EACCES));
        bed.end();
    }
}

#[test]
fn special_files_are_made_only_when_configured() {
    let mut bed = Bed::new();
    let dir = bed.client.root(0).node;
    let request =
        Request::Mknod { dir, name: name("f"), file_type: FileType::Fifo, mode: 0o644, owner: me() };
    assert_eq!(bed.client.ask(&request), Err(Errno::EPERM));
    bed.end();
}

#[test]
fn directories_are_made_listed_renamed_and_removed() {
    let mut bed = Bed::new();
    let root = bed.client.root(0).node;
    let mkdir = Request::Mkdir { dir: root, name: name("d"), mode: 0o1750, owner: me() };
    let dir = node(bed.client.ask(&mkdir));
    assert_eq!(dir.attr.stat().mode & 0o7777, 0o1750);
    for index in 0..500 {
        std::fs::write(bed.path(&format!("d/file{index}")), b"").expect("write");
    }
    // Chunks alternate between connections, so that cookies and not positions carry the listing.
    let (mut seen, mut cookie) = (Vec::new(), 0);
    for turn in 0.. {
        let client = if turn % 2 == 0 { &mut bed.client } else { &mut bed.other };
        let request = Request::Readdir { node: dir.node, cookie, max: 4096 };
        let Ok(Response::Entries(entries)) = client.ask(&request) else { panic!("entries") };
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        seen.extend(entries.into_iter().map(|entry| entry.name));
    }
    seen.sort();
    assert_eq!(seen.len(), 500);
    seen.dedup();
    assert_eq!(seen.len(), 500);
    let rmdir = Request::Unlink { dir: root, name: name("d"), kind: RemoveKind::Directory };
    assert_eq!(bed.client.ask(&rmdir), Err(Errno::ENOTEMPTY));
    let rename = |to, flags| Request::Rename {
        from_dir: dir.node,
        from: name("file1"),
        to_dir: root,
        to: name(to),
        flags,
    };
    assert_eq!(bed.client.ask(&rename("out", RenameFlags::empty())), Ok(Response::Done));
    assert!(bed.path("out").exists() && !bed.path("d/file1").exists());
    std::fs::write(bed.path("d/file1"), b"second").expect("write");
    assert_eq!(bed.client.ask(&rename("out", RenameFlags::NOREPLACE)), Err(Errno::EEXIST));
    assert_eq!(bed.client.ask(&rename("out", RenameFlags::EXCHANGE)), Ok(Response::Done));
    assert_eq!(std::fs::read(bed.path("out")).expect("read"), b"second");
    bed.end();
}

#[test]
fn links_attributes_and_symlinks() {
    let mut bed = Bed::new();
    std::fs::write(bed.path("file"), b"text").expect("write");
    let root = bed.client.root(0).node;
    let file = bed.client.find(root, &["file"]).node;
    let link = Request::Link { node: file, dir: root, name: name("hard") };
    let linked = bed.client.ask(&link);
    assert!(matches!(linked, Ok(Response::Attr(attr)) if attr.stat().nlink == 2), "{linked:?}");
    let at = Timespec { sec: 12345, nsec: 678 };
    let changes = SetAttr {
        mode: Some(0o4711),
        mtime: Some(SetTime::At(at)),
        atime: Some(SetTime::Now),
        ..SetAttr::default()
    };
    let Ok(Response::Attr(attr)) = bed.client.ask(&Request::SetStat { node: file, changes }) else {
        panic!("attributes")
    };
    assert_eq!((attr.stat().mode & 0o7777, attr.stat().mtime), (0o4711, at));
    assert!(attr.stat().atime.sec > 12345);
    let request = Request::Symlink { dir: root, name: name("sym"), target: b"/a/../b", owner: me() };
    let made = node(bed.client.ask(&request));
    assert_eq!(std::fs::read_link(bed.path("sym")).expect("readlink"), Path::new("/a/../b"));
    // Times of the link itself, which leads nowhere.
    let changes = SetAttr { mtime: Some(SetTime::At(at)), ..SetAttr::default() };
    let set = bed.client.ask(&Request::SetStat { node: made.node, changes });
    assert!(matches!(set, Ok(Response::Attr(attr)) if attr.stat().mtime == at), "{set:?}");
    assert_eq!(bed.client.ask(&Request::Fsync { node: file }), Ok(Response::Done));
    assert_eq!(bed.client.ask(&Request::Fsync { node: root }), Ok(Response::Done));
    let stat = bed.client.ask(&Request::StatFs { node: root });
    assert!(matches!(stat, Ok(Response::StatFs(stat)) if stat.blocks > 0));
    bed.end();
}

#[test]
fn only_user_attributes_exist() {
    let mut bed = Bed::new();
    std::fs::write(bed.path("file"), b"").expect("write");
    let root = bed.client.root(0).node;
    let node = bed.client.find(root, &["file"]).node;
    let set = |name| Request::SetXattr { node, name, value: b"v", flags: XattrFlags::CREATE };
    for refused in [&b"security.capability"[..], b"trusted.x", b"system.posix_acl_access", b"x"] {
        assert_eq!(bed.client.ask(&set(refused)), Err(Errno::EOPNOTSUPP));
    }
    match bed.client.ask(&set(b"user.a")) {
        Ok(_) => {}
        // A temporary directory on a file system without them.
        Err(errno) => return assert_eq!(errno, Errno::EOPNOTSUPP),
    }
    assert_eq!(bed.client.ask(&set(b"user.a")), Err(Errno::EEXIST));
    let get = Request::GetXattr { node, name: b"user.a" };
    assert_eq!(bed.client.ask(&get), Ok(Response::Bytes(b"v".to_vec())));
    let list = bed.client.ask(&Request::ListXattr { node });
    assert_eq!(list, Ok(Response::Bytes(b"user.a\0".to_vec())));
    let remove = Request::RemoveXattr { node, name: b"user.a" };
    assert_eq!(bed.client.ask(&remove), Ok(Response::Done));
    assert_eq!(bed.client.ask(&get), Err(Errno::ENODATA));
    bed.end();
}

#[test]
fn nodes_are_bounded_and_closed() {
    let mut bed = Bed::with(|config| config.max_nodes = 3);
    std::fs::create_dir_all(bed.path("a/b/c")).expect("mkdir");
    let root = bed.client.root(0).node;
    let (nodes, stop) = bed.client.walk(root, &["a", "b", "c"]);
    assert_eq!((nodes.len(), stop), (2, Some(Errno::ENFILE)));
    let ids: Vec<_> = nodes.iter().map(|n| n.node).collect();
    bed.client.ask(&Request::Close { nodes: ids.clone() }).expect("closes");
    assert_eq!(bed.client.ask(&Request::Stat { node: ids[0] }), Err(Errno::EBADF));
    let (nodes, stop) = bed.client.walk(root, &["a", "b"]);
    assert_eq!((nodes.len(), stop), (2, None));
    assert!(nodes.iter().all(|n| !ids.contains(&n.node)), "numbers are not used twice");
    bed.end();
}

#[test]
fn ownership_is_given_by_root_only_and_failed_creations_vanish() {
    let mut bed = Bed::new();
    let root = bed.client.root(0).node;
    let owner = Ownership { uid: 1234, gid: 2345 };
    let mkdir = Request::Mkdir { dir: root, name: name("d"), mode: 0o755, owner };
    match bed.client.ask(&mkdir) {
        Ok(Response::Node(made)) => {
            assert_eq!((made.attr.stat().uid, made.attr.stat().gid), (1234, 2345));
        }
        other => {
            assert_eq!(other, Err(Errno::EPERM));
            assert!(!bed.path("d").exists());
        }
    }
    bed.end();
}

/// Every request once, in threads that would be killed, and the test with them, for a call that is
/// not in the table.
#[test]
fn a_locked_in_gofer_answers_everything() {
    let mut bed = Bed::with(|config| {
        config.confinement = Confinement::LockedIn;
        config.special_files = true;
    });
    std::fs::write(bed.path("file"), b"text").expect("write");
    std::fs::set_permissions(bed.path("file"), PermissionsExt::from_mode(0o600)).expect("chmod");
    let (dir, owner, mode, flags) = (bed.client.root(0).node, me(), 0o6644, OpenFlags::RDWR);
    let node = bed.client.find(dir, &["file"]).node;
    let changes = SetAttr {
        uid: Some(owner.uid),
        gid: Some(owner.gid),
        mode: Some(0o640),
        size: Some(100_000),
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::Now),
    };
    let value = vec![7; 2000];
    let requests = [
        Request::Stat { node },
        Request::SetStat { node, changes },
        Request::Open { node, flags },
        Request::Create { dir, name: name("created"), flags, mode, owner },
        Request::CreateUnnamed { dir, mode, owner },
        Request::Mkdir { dir, name: name("dir"), mode, owner },
        Request::Mknod { dir, name: name("fifo"), file_type: FileType::Fifo, mode, owner },
        Request::Mknod { dir, name: name("socket"), file_type: FileType::Socket, mode, owner },
        Request::Symlink { dir, name: name("sym"), target: b"x", owner },
        Request::Link { node, dir, name: name("hard") },
        Request::Rename {
            from_dir: dir,
            from: name("hard"),
            to_dir: dir,
            to: name("moved"),
            flags: RenameFlags::NOREPLACE,
        },
        Request::Unlink { dir, name: name("moved"), kind: RemoveKind::File },
        Request::Unlink { dir, name: name("dir"), kind: RemoveKind::Directory },
        Request::Readdir { node: dir, cookie: 0, max: 1 << 20 },
        Request::StatFs { node },
        Request::SetXattr { node, name: b"user.a", value: &value, flags: XattrFlags::empty() },
        Request::GetXattr { node, name: b"user.a" },
        Request::ListXattr { node },
        Request::RemoveXattr { node, name: b"user.a" },
        Request::Fsync { node },
        Request::SyncFs { node: dir },
        Request::Close { nodes: vec![node] },
    ];
    for request in &requests {
        let (response, _) = bed.client.call(request);
        let without_xattrs = response == Response::Error(Errno::EOPNOTSUPP);
        assert!(!matches!(response, Response::Error(_)) || without_xattrs, "{request:?} {response:?}");
    }
    let sym = bed.client.find(dir, &["sym"]).node;
    assert_eq!(bed.client.ask(&Request::Readlink { node: sym }), Ok(Response::Bytes(b"x".to_vec())));
    bed.end();
}
