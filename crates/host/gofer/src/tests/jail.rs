//! The Gofer as it is run: in a mount namespace of its own, whose root holds the attachment and no
//! procfs, and locked in.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use abi::Errno;
use abi::fs::OpenFlags;
use gofer_proto::{Request, Response, SetAttr};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Client, handle, me, name, pair};
use crate::{Attach, Config, serve};

const CHILD: &str = "GOFER_JAIL_CHILD";

/// A process of its own, because it loses its root and its privileges.
#[test]
fn a_jailed_gofer_reopens_files_without_a_procfs() {
    if !nix::unistd::geteuid().is_root() {
        // Without privileges this needs a user namespace, which a process with threads cannot enter.
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "tests::jail::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.signal(), output.status.code()), (None, Some(0)), "{text}");
    let left = std::fs::read(dir.path().join("attached/made")).expect("the file is there");
    assert_eq!(left, b"from inside");
}

/// The body of that process; passes when it is not one.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let dir = Path::new(&dir);
    std::fs::create_dir(dir.join("attached")).expect("mkdir");
    std::fs::write(dir.join("attached/file"), b"text").expect("write");
    let proc_fd = Config::open_proc_fd().expect("procfs");
    pivot_into(dir);
    assert!(std::fs::metadata("/proc/self/fd").is_err(), "there is no procfs any more");
    assert!(std::fs::metadata("/etc/passwd").is_err(), "nor anything else");
    let attach = Attach { root: handle(Path::new("/attached")), readonly: false };
    let config = Config::new(vec![attach], proc_fd);
    let (socket, server) = pair();
    std::thread::spawn(move || serve(config, vec![server]));
    use_it(&mut Client { socket, last: 0 });
    std::process::exit(0);
}

fn pivot_into(dir: &Path) {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("private");
    mount(Some(dir), dir, NONE, MsFlags::MS_BIND, NONE).expect("bind");
    std::env::set_current_dir(dir).expect("chdir");
    nix::unistd::pivot_root(".", ".").expect("pivot_root");
    umount2(".", MntFlags::MNT_DETACH).expect("umount");
    std::env::set_current_dir("/").expect("chdir");
}

fn use_it(client: &mut Client) {
    use std::io::{Read, Write};
    let root = client.root(0).node;
    let file = client.find(root, &["file"]).node;
    let mut text = String::new();
    let mut opened = client.open(file, OpenFlags::empty()).expect("opens");
    opened.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "text");
    let flags = OpenFlags::RDWR;
    let create = Request::Create { dir: root, name: name("made"), flags, mode: 0o4755, owner: me() };
    let mut made = client.file(&create).expect("creates");
    made.write_all(b"from inside").expect("writes");
    let changes = SetAttr { mode: Some(0o600), size: Some(2), ..SetAttr::default() };
    let set = client.ask(&Request::SetStat { node: file, changes });
    assert!(matches!(set, Ok(Response::Attr(attr)) if attr.stat().size == 2), "{set:?}");
    let link = Request::Link { node: file, dir: root, name: name("hard") };
    assert!(matches!(client.ask(&link), Ok(Response::Attr(attr)) if attr.stat().nlink == 2));
    assert_eq!(client.walk(root, &["etc"]).1, Some(Errno::ENOENT));
}
