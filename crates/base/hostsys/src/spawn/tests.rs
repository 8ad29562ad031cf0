//! This test binary as the program that is started again.

use std::io::Read;
use std::os::fd::AsFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{ParentDeath, Program, spawn_self};
use crate::namespace::{ALL, Ids, Namespaces};
use crate::{inherit, mount, pidfd, privilege};

/// Descriptor on which a child is told what to do, so that a run of the tests by hand is none.
const BODY: i32 = 3;

fn program<'a>(fds: Vec<std::os::fd::BorrowedFd<'a>>, namespaces: Namespaces, ids: Ids) -> Program<'a> {
    let args = ["test", "--exact", "spawn::tests::child", "--nocapture", "--test-threads=1"];
    let args = args.iter().map(Into::into).collect();
    Program { args, namespaces, ids, fds, parent_death: ParentDeath::Kills }
}

/// What a child with that body writes, and how it ends.
fn outcome(body: &str, namespaces: Namespaces, ids: Ids) -> (String, pidfd::Ended) {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("null");
    let err = std::io::stderr();
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).expect("pair");
    let fds = vec![null.as_fd(), null.as_fd(), err.as_fd(), theirs.as_fd()];
    let child = spawn_self(&program(fds, namespaces, ids)).expect("spawns");
    drop(theirs);
    let mut stream = std::os::unix::net::UnixStream::from(ours);
    std::io::Write::write_all(&mut stream, body.as_bytes()).expect("tells");
    stream.shutdown(std::net::Shutdown::Write).expect("ends");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    (text, pidfd::wait(child.process.as_fd()).expect("waits"))
}

/// The body of a child; passes when it is not one.
#[test]
fn child() {
    // Nobody gives the test runner this descriptor as a socket but `outcome`.
    let is_socket = std::fs::read_link(format!("/proc/self/fd/{BODY}"))
        .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
    if !is_socket || std::env::vars_os().next().is_some() {
        return;
    }
    let mut stream = std::os::unix::net::UnixStream::from(inherit::take(BODY).expect("inherited"));
    let mut body = String::new();
    stream.read_to_string(&mut body).expect("reads");
    let text = match body.as_str() {
        "ids" => format!("{} {}", std::process::id(), nix::unistd::geteuid()),
        "map" => std::fs::read_to_string("/proc/self/uid_map").expect("a map"),
        "fds" => fds(),
        "jail" => jail(),
        _ => String::new(),
    };
    std::io::Write::write_all(&mut stream, text.as_bytes()).expect("answers");
    std::process::exit(7);
}

fn fds() -> String {
    let entries = std::fs::read_dir("/proc/self/fd").expect("reads");
    let mut names: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > BODY)
        .collect();
    names.sort_unstable();
    // The one that lists.
    format!("{}", names.len() - 1)
}

fn jail() -> String {
    mount::isolate().expect("private");
    mount::mount_own_proc().expect("procfs");
    let others = std::fs::read_dir("/proc").expect("procfs");
    let others = others.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let others: Vec<i32> = others.collect();
    let sys = std::fs::metadata("/proc/sys").is_err();
    mount::enter_empty_root().expect("root");
    privilege::keep_only(&[]).expect("drops");
    let inside = std::fs::read_dir("/").expect("root").count();
    let up = std::fs::read_dir("/..").expect("root").count();
    let write = std::fs::File::create("/x").expect_err("is read-only").raw_os_error();
    format!("{others:?} {sys} {inside} {up} {write:?}")
}

#[test]
fn a_child_is_alone() {
    use pidfd::Ended::Exited;
    let root = nix::unistd::geteuid().is_root();
    let (text, ended) = outcome("ids", ALL, Ids::Same);
    assert_eq!((text.as_str(), ended), ("1 0", Exited(7)));
    // A descriptor of ours that is not close-on-exec is not given to it either.
    let leak = nix::unistd::dup(std::io::stderr()).expect("dup");
    nix::fcntl::fcntl(&leak, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("set");
    assert_eq!(outcome("fds", Namespaces::empty(), Ids::Same), ("0".into(), Exited(7)));
    if root {
        let (text, ended) = outcome("jail", ALL, Ids::Same);
        assert_eq!((text.as_str(), ended), ("[1] true 0 0 Some(30)", Exited(7)));
    }
}

#[test]
fn a_child_is_nobody_outside() {
    use pidfd::Ended::Exited;
    let (text, ended) = outcome("ids", ALL, Ids::Nobody);
    assert_eq!((text.as_str(), ended), ("1 0", Exited(7)));
    if nix::unistd::geteuid().is_root() {
        let (text, ended) = outcome("map", ALL, Ids::Nobody);
        assert_eq!(
            (text.split_whitespace().collect::<Vec<_>>(), ended),
            (vec!["0", "65534", "1"], Exited(7))
        );
        assert_eq!(outcome("jail", ALL, Ids::Nobody).1, Exited(7));
    }
}
