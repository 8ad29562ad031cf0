//! Tests of the line discipline, and "random bytes never panic".

use proptest::prelude::{any, proptest};

use super::*;

fn feed(ldisc: &mut Ldisc, bytes: &[u8]) -> Vec<Signal> {
    let mut effects = Effects::default();
    ldisc.receive(bytes, &mut effects);
    effects.signals
}

fn screen(ldisc: &mut Ldisc) -> String {
    String::from_utf8_lossy(&ldisc.take_output(usize::MAX)).into_owned()
}

#[test]
fn a_line_is_edited_echoed_and_read_whole() {
    let mut ldisc = Ldisc::default();
    feed(&mut ldisc, b"ab\x7fc");
    assert_eq!(ldisc.readiness(10, false), Readiness::Wait);
    feed(&mut ldisc, b"\rnext\n");
    assert_eq!(screen(&mut ldisc), "ab\x08 \x08c\r\nnext\r\n");
    assert_eq!(ldisc.take_input(1), b"a");
    assert_eq!(ldisc.take_input(100), b"c\n");
    assert_eq!(ldisc.take_input(100), b"next\n");
}

#[test]
fn end_of_file_ends_a_line_or_a_read() {
    let mut ldisc = Ldisc::default();
    feed(&mut ldisc, b"x\x04\x04");
    assert_eq!(ldisc.readiness(10, false), Readiness::Ready);
    assert_eq!(ldisc.take_input(10), b"x");
    assert_eq!(ldisc.readiness(10, false), Readiness::Ready);
    assert_eq!(ldisc.take_input(10), b"");
    assert_eq!(ldisc.readiness(10, false), Readiness::Wait);
}

#[test]
fn signals_flush_and_echo() {
    let mut ldisc = Ldisc::default();
    assert_eq!(feed(&mut ldisc, b"lost\x03\x1a\x1c"), [Signal::SIGINT, Signal::SIGTSTP, Signal::SIGQUIT]);
    assert_eq!(screen(&mut ldisc), "^\\");
    feed(&mut ldisc, b"kept\n");
    assert_eq!(ldisc.take_input(10), b"kept\n");
}

#[test]
fn words_lines_and_literals() {
    let mut ldisc = Ldisc::default();
    feed(&mut ldisc, b"one two \x17three\n");
    assert_eq!(ldisc.take_input(99), b"one three\n");
    feed(&mut ldisc, b"gone\x15\x16\x03\n");
    assert_eq!(ldisc.take_input(99), b"\x03\n");
}

#[test]
fn raw_mode_waits_for_vmin_and_takes_an_unfinished_line() {
    let mut ldisc = Ldisc::default();
    feed(&mut ldisc, b"half");
    let mut raw = ldisc.termios;
    (raw.lflag, raw.iflag, raw.oflag) = (0, 0, 0);
    raw.cc[cc::VMIN] = 6;
    ldisc.set_termios(raw);
    assert_eq!(ldisc.readiness(10, false), Readiness::Wait);
    assert_eq!(ldisc.readiness(10, true), Readiness::Ready);
    feed(&mut ldisc, b"\x03\r");
    assert_eq!(ldisc.readiness(10, false), Readiness::Ready);
    assert_eq!(ldisc.take_input(10), b"half\x03\r");
    raw.cc[cc::VMIN] = 0;
    ldisc.set_termios(raw);
    assert_eq!(ldisc.readiness(10, false), Readiness::Empty);
}

#[test]
fn output_is_stopped_and_started() {
    let mut ldisc = Ldisc::default();
    feed(&mut ldisc, b"\x13");
    assert_eq!(ldisc.output_room(), 0);
    feed(&mut ldisc, b"\x11");
    assert!(ldisc.output_room() > 0);
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_queues_stay_bounded(
        rounds in proptest::collection::vec(
            (any::<u32>(), any::<u32>(), any::<u32>(), any::<[u8; 19]>(),
             proptest::collection::vec(any::<u8>(), 0..600), 0usize..700), 0..12)
    ) {
        let mut ldisc = Ldisc::default();
        for (iflag, oflag, lflag, cc, bytes, want) in rounds {
            feed(&mut ldisc, &bytes);
            ldisc.write(&bytes);
            let got = ldisc.take_input(want);
            ldisc.give_back(&got[got.len() / 2..]);
            ldisc.take_output(want);
            ldisc.set_termios(Termios { iflag, oflag, cflag: 0, lflag, line: 0, cc });
            assert!(ldisc.line.len() <= LINE_MAX);
            assert!(ldisc.output.len() <= QUEUE_MAX + LINE_MAX);
            let sum: usize = ldisc.ready.iter().map(|chunk| chunk.bytes.len()).sum();
            assert_eq!(sum, ldisc.ready_len);
        }
    }
}
