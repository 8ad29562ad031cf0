//! Tests with a process table of one.

use std::time::Duration;

use abi::Errno;
use abi::fs::OpenFlags;
use abi::limits::Limits;
use abi::signal::{SigSet, Signal};
use cred::Credentials;
use guestmem::VecSink;
use mm::MemoryManager;
use vfs::{FileContext, FileSystem, Inode, LinkTarget, Result};

use super::*;

struct One;

impl Processes for One {
    fn current(&self) -> Option<(i32, i32)> {
        Some((7, 7))
    }

    fn pids(&self) -> Vec<i32> {
        vec![7]
    }

    fn process(&self, pid: i32) -> Option<Arc<dyn Process>> {
        (pid == 7).then(|| -> Arc<dyn Process> { Arc::new(Seven) })
    }

    fn system(&self) -> SystemFacts {
        SystemFacts {
            cpus: 2,
            memory: 1 << 30,
            uptime: Duration::from_millis(1500),
            ..SystemFacts::default()
        }
    }
}

struct Seven;

impl Process for Seven {
    fn facts(&self) -> Result<Facts> {
        Ok(Facts {
            pid: 7,
            tid: 7,
            ppid: 1,
            group: 7,
            session: 7,
            inner: Vec::new(),
            terminal: 0,
            foreground: -1,
            tracer: 0,
            state: State::Sleeping,
            name: b"a b)\n".to_vec(),
            cred: Arc::new(Credentials::user(5, 6)),
            threads: 1,
            user_time: Duration::from_millis(120),
            system_time: Duration::ZERO,
            children_time: (Duration::ZERO, Duration::ZERO),
            start: Duration::from_secs(3),
            nice: 0,
            pending: SigSet::EMPTY,
            shared_pending: SigSet::EMPTY,
            blocked: SigSet::of(Signal::SIGINT),
            ignored: SigSet::EMPTY,
            caught: SigSet::EMPTY,
            umask: 0o22,
            fd_size: 64,
            seccomp: 0,
            exit_signal: 17,
            limits: Limits::default(),
            oom_score_adj: 0,
        })
    }

    fn mm(&self) -> Option<Arc<MemoryManager>> {
        None
    }

    fn threads(&self) -> Vec<i32> {
        vec![7]
    }

    fn thread(&self, tid: i32) -> Option<Arc<dyn Process>> {
        One.process(tid)
    }

    fn cmdline(&self) -> Result<Vec<u8>> {
        Ok(b"a\0b\0".to_vec())
    }

    fn environ(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn auxv(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn link(&self, which: Which) -> Result<LinkFacts> {
        match which {
            Which::Fd(0) => Ok(LinkFacts { path: b"/dev/null".to_vec(), object: Some(Arc::new(0u8)) }),
            _ => Err(Errno::ENOENT),
        }
    }

    fn fds(&self) -> Result<Vec<i32>> {
        Ok(vec![0])
    }

    fn fd(&self, fd: i32) -> Result<FdFacts> {
        if fd == 0 { Ok(FdFacts { flags: 0o2, ..FdFacts::default() }) } else { Err(Errno::ENOENT) }
    }

    fn mounts(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn mountinfo(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

fn find(path: &str) -> Result<Arc<dyn Inode>> {
    let config = ProcConfig {
        settings: Vec::new(),
        processes: Arc::new(One),
        net: None,
        release: "6.6.0".to_owned(),
        version: "#1".to_owned(),
        filesystems: vec!["proc"],
        cpu: CpuModel::default(),
        boot_id: String::new(),
        min_address: 65536,
    };
    let start: Arc<dyn Inode> = mount(3, Timespec::default(), config).root();
    path.split('/').try_fold(start, |inode, name| inode.lookup(name.as_bytes()))
}

fn read(path: &str) -> Result<String> {
    let cred = Credentials::root();
    let cx = FileContext { cred: &cred, pid: 7, tid: 7 };
    let mut sink = VecSink::new(1 << 16);
    find(path)?.open(&cx, OpenFlags::empty())?.read(&cx, 0, &mut sink)?;
    Ok(String::from_utf8_lossy(&sink.bytes).into_owned())
}

#[test]
fn stat_has_its_fields_behind_the_last_parenthesis() -> Result<()> {
    let text = read("7/stat")?;
    let (head, tail) = text.rsplit_once(") ").ok_or(Errno::EINVAL)?;
    assert_eq!(head, "7 (a b)\n");
    let fields: Vec<&str> = tail.split_whitespace().collect();
    assert_eq!(fields.len(), 50);
    // Numbers of `proc_pid_stat(5)`, of which this begins with the third.
    let field = |number: usize| fields.get(number - 3).copied();
    assert_eq!((field(3), field(4), field(8)), (Some("S"), Some("1"), Some("-1")));
    assert_eq!(
        (field(14), field(18), field(20), field(22)),
        (Some("12"), Some("20"), Some("1"), Some("300"))
    );
    assert_eq!((field(32), field(38)), (Some("2"), Some("17")));
    Ok(())
}

#[test]
fn status_and_links_and_ids() -> Result<()> {
    let status = read("7/status")?;
    assert!(status.starts_with("Name:\ta b)\\n\nUmask:\t0022\nState:\tS (sleeping)\n"), "{status}");
    assert!(status.contains("\nUid:\t5\t5\t5\t5\n") && status.contains("\nSigBlk:\t0000000000000002\n"));
    assert_eq!(find("self")?.readlink()?, b"7");
    assert_eq!(find("thread-self")?.readlink()?, b"7/task/7");
    assert_eq!(find("8").err(), Some(Errno::ENOENT));
    assert_eq!(find("07").err(), Some(Errno::ENOENT));
    assert_eq!(read("7/task/7/cmdline")?, "a\0b\0");
    assert_eq!(read("7/fdinfo/0")?, "pos:\t0\nflags:\t02\nmnt_id:\t0\nino:\t0\n");
    assert_eq!(read("uptime")?, "1.50 3.00\n");
    assert_eq!(read("sys/kernel/osrelease")?, "6.6.0\n");
    Ok(())
}

#[test]
fn magic_links_jump_for_those_who_may_look() -> Result<()> {
    let link = find("7/fd/0")?;
    assert_eq!(link.readlink()?, b"/dev/null");
    assert_eq!(link.attr()?.perm.bits(), 0o700);
    assert!(matches!(link.follow(&Credentials::user(5, 6))?, LinkTarget::Jump(_)));
    assert!(matches!(link.follow(&Credentials::user(1, 1)), Err(Errno::EACCES)));
    assert_eq!(find("7/fd/1").err(), Some(Errno::ENOENT));
    Ok(())
}
