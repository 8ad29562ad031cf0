//! Tests of both ends together.

use cred::Credentials;
use guestmem::{SliceSource, VecSink};

use super::*;
use crate::job::NoJobs;

fn pair() -> (SlaveFile, MasterFile) {
    let (tty, master) = Tty::new(0, 0, Locked::No, Arc::new(NoJobs));
    let slave = with_cx(|cx| tty.open_slave(cx, OpenFlags::RDWR));
    (slave.unwrap_or_else(|errno| panic!("{errno}")), master)
}

fn with_cx<T>(f: impl FnOnce(&FileContext<'_>) -> T) -> T {
    let cred = Credentials::root();
    f(&FileContext { cred: &cred, pid: 1, tid: 1 })
}

fn read(file: &dyn File) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(4096);
    with_cx(|cx| file.read(cx, 0, &mut sink)).map(|_| sink.bytes)
}

fn write(file: &dyn File, bytes: &[u8]) -> Result<usize> {
    with_cx(|cx| file.write(cx, 0, &mut SliceSource(bytes)))
}

#[test]
fn bytes_go_both_ways_and_closing_hangs_up() {
    let (slave, master) = pair();
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert_eq!(write(&master, b"hi\r"), Ok(3));
    assert_eq!(slave.poll(), PollEvents::READABLE | PollEvents::WRITABLE);
    assert_eq!(read(&slave), Ok(b"hi\n".to_vec()));
    assert_eq!(write(&slave, b"out\n"), Ok(4));
    assert_eq!(read(&master), Ok(b"hi\r\nout\r\n".to_vec()));
    assert_eq!(read(&master), Err(Errno::EAGAIN));
    drop(master);
    assert_eq!(read(&slave), Ok(Vec::new()));
    assert_eq!(write(&slave, b"x"), Err(Errno::EIO));
    let (slave, master) = pair();
    drop(slave);
    assert_eq!(read(&master), Err(Errno::EIO));
    assert!(master.poll().contains(PollEvents::HUP));
}

#[test]
fn a_full_output_makes_the_writer_wait() {
    let (slave, master) = pair();
    let mut total = 0;
    while let Ok(n) = write(&slave, &[b'x'; 4096]) {
        total += n;
    }
    assert!(total > 60000 && total <= ldisc::QUEUE_MAX);
    assert!(!slave.poll().contains(PollEvents::OUT));
    assert_eq!(read(&master).map(|b| b.len()), Ok(4096));
    assert!(slave.poll().contains(PollEvents::OUT));
}

#[test]
fn a_locked_slave_does_not_open() {
    let (tty, _master) = Tty::new(0, 0, Locked::Yes, Arc::new(NoJobs));
    assert_eq!(with_cx(|cx| tty.open_slave(cx, OpenFlags::RDWR)).err(), Some(Errno::EIO));
}
