//! Tests of pipes, with a model: a pipe is a bounded byte queue.

use std::collections::VecDeque;

use guestmem::{SliceSource, VecSink};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::*;

fn with_cx<T>(f: impl FnOnce(&FileContext<'_>) -> T) -> T {
    let cred = Credentials::root();
    f(&FileContext { cred: &cred, pid: 1, tid: 1 })
}

fn read(end: &PipeEnd, len: usize) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(len);
    with_cx(|cx| end.read(cx, 0, &mut sink)).map(|_| sink.bytes)
}

fn write(end: &PipeEnd, bytes: &[u8]) -> Result<usize> {
    with_cx(|cx| end.write(cx, 0, &mut SliceSource(bytes)))
}

#[test]
fn end_of_file_comes_after_the_last_byte_and_epipe_without_readers() {
    let (r, w) = Pipe::pair(OpenFlags::empty());
    assert_eq!(read(&r, 4), Err(Errno::EAGAIN));
    assert_eq!(write(&w, b"abcdef"), Ok(6));
    drop(w);
    assert_eq!(r.poll(), PollEvents::READABLE | PollEvents::HUP);
    assert_eq!(read(&r, 4), Ok(b"abcd".to_vec()));
    assert_eq!(read(&r, 4), Ok(b"ef".to_vec()));
    assert_eq!(read(&r, 4), Ok(Vec::new()));
    let (r, w) = Pipe::pair(OpenFlags::empty());
    drop(r);
    assert_eq!(write(&w, b"x"), Err(Errno::EPIPE));
    assert_eq!(w.poll(), PollEvents::WRITABLE | PollEvents::ERR);
}

#[test]
fn small_writes_are_atomic_and_large_ones_partial() {
    let (r, w) = Pipe::pair(OpenFlags::empty());
    assert_eq!(write(&w, &vec![1; 65536 - 10]), Ok(65526));
    assert_eq!(write(&w, &[2; 11]), Err(Errno::EAGAIN));
    assert_eq!(write(&w, &[2; 5000]), Ok(10));
    assert_eq!(w.poll(), PollEvents::empty());
    assert_eq!(read(&r, 4096).map(|b| b.len()), Ok(4096));
    assert_eq!(w.poll(), PollEvents::WRITABLE);
}

#[test]
fn packets_keep_their_bounds_and_lose_what_does_not_fit() {
    let (r, w) = Pipe::pair(OpenFlags::DIRECT);
    assert_eq!(write(&w, b"first"), Ok(5));
    assert_eq!(write(&w, b"second"), Ok(6));
    assert_eq!(read(&r, 3), Ok(b"fir".to_vec()));
    assert_eq!(read(&r, 100), Ok(b"second".to_vec()));
    for _ in 0..16 {
        assert_eq!(write(&w, b"x"), Ok(1));
    }
    assert_eq!(write(&w, b"x"), Err(Errno::EAGAIN));
}

#[test]
fn capacity_has_bounds() {
    let (_r, w) = Pipe::pair(OpenFlags::empty());
    let (root, user) = (Credentials::root(), Credentials::user(1, 1));
    assert_eq!(w.pipe().set_capacity(&user, 5000), Ok(8192));
    assert_eq!(w.pipe().set_capacity(&user, 2 << 20), Err(Errno::EPERM));
    assert_eq!(w.pipe().set_capacity(&root, 2 << 20), Ok(2 << 20));
    assert_eq!(write(&w, &[0; 9000]), Ok(9000));
    assert_eq!(w.pipe().set_capacity(&root, 4096), Err(Errno::EBUSY));
    assert_eq!(w.pipe().set_capacity(&root, 0), Err(Errno::EINVAL));
}

#[test]
fn a_fifo_opens_when_both_sides_have_come() {
    let fifo = Pipe::fifo();
    assert_eq!(fifo.open(OpenFlags::WRONLY | OpenFlags::NONBLOCK).err(), Some(Errno::ENXIO));
    let reader = fifo.open(OpenFlags::empty()).unwrap_or_else(|e| panic!("{e}"));
    assert!(!reader.peer_seen());
    assert_eq!(reader.poll(), PollEvents::empty());
    assert_eq!(read(&reader, 1), Ok(Vec::new()));
    let writer = fifo.open(OpenFlags::WRONLY).unwrap_or_else(|e| panic!("{e}"));
    assert!(reader.peer_seen() && writer.peer_seen());
    drop(writer);
    assert_eq!(reader.poll(), PollEvents::HUP);
}

#[derive(Clone, Debug)]
enum Op {
    Read(usize),
    Write(Vec<u8>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0usize..9000).prop_map(Op::Read),
        (any::<u8>(), 0usize..9000).prop_map(|(byte, len)| Op::Write(vec![byte; len])),
    ];
    proptest::collection::vec(op, 0..60)
}

proptest! {
    #[test]
    fn a_pipe_is_a_bounded_byte_queue(ops in ops()) {
        let (r, w) = Pipe::pair(OpenFlags::empty());
        w.pipe().set_capacity(&Credentials::root(), 16384).ok();
        let mut model: VecDeque<u8> = VecDeque::new();
        for op in ops {
            match op {
                Op::Read(len) => {
                    let want: Vec<u8> = model.drain(..len.min(model.len())).collect();
                    let want = if want.is_empty() && len > 0 { Err(Errno::EAGAIN) } else { Ok(want) };
                    assert_eq!(read(&r, len), want);
                }
                Op::Write(bytes) => {
                    let room = 16384 - model.len();
                    let fits = if bytes.len() <= PIPE_BUF && bytes.len() > room { 0 } else { bytes.len().min(room) };
                    let want = if fits == 0 && !bytes.is_empty() { Err(Errno::EAGAIN) } else { Ok(fits) };
                    assert_eq!(write(&w, &bytes), want);
                    model.extend(bytes.iter().take(fits));
                }
            }
            assert_eq!(w.poll().contains(PollEvents::OUT), 16384 - model.len() >= PIPE_BUF);
            assert_eq!(r.poll().contains(PollEvents::IN), !model.is_empty());
        }
    }
}

#[test]
fn a_pipe_opened_once_more_waits_for_nobody() {
    let (reader, writer) = Pipe::pair(OpenFlags::empty());
    let pipe = Arc::clone(reader.pipe());
    drop(writer);
    let again = pipe.open(OpenFlags::empty()).expect("a reader");
    assert!(again.peer_seen());
    drop((reader, again));
    assert!(pipe.open(OpenFlags::WRONLY | OpenFlags::NONBLOCK).expect("a writer").peer_seen());
}
