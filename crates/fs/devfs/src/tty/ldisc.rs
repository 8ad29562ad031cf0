//! The line discipline (`termios(3)`): what happens to bytes between the two ends of a terminal.
//!
//! Pure state: no locks, no wake-ups, no signals of its own. What has to happen outside comes back as
//! [`Effects`]. Everything a guest can grow is bounded by [`LINE_MAX`] and [`QUEUE_MAX`].
//!
//! Deliberately absent: `ECHOPRT`, `IUCLC`/`OLCUC`, parity and break, delays; hardware has them.

use std::collections::VecDeque;

use abi::signal::Signal;
use abi::tty::{InputModes, LocalModes, OutputModes, Termios, cc};

/// Longest line under editing, in bytes, with its end.
pub(crate) const LINE_MAX: usize = 4096;
/// Most bytes in either queue.
pub(crate) const QUEUE_MAX: usize = 65536;
/// A disabled special character.
const DISABLED: u8 = 0;

/// What the caller has to do after it has released its lock.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Signals for the foreground group.
    pub(crate) signals: Vec<Signal>,
}

/// A piece of input that is ready to be read.
#[derive(Debug)]
struct Chunk {
    bytes: VecDeque<u8>,
    /// A line of canonical mode: a read ends with it. Without bytes it is an end of file.
    line: bool,
}

/// Both queues of a terminal and the line being edited.
#[derive(Debug, Default)]
pub(crate) struct Ldisc {
    pub(crate) termios: Termios,
    /// Output for the master.
    output: VecDeque<u8>,
    ready: VecDeque<Chunk>,
    ready_len: usize,
    line: Vec<u8>,
    /// The next character is literal.
    literal: bool,
    /// Output is stopped (`IXON`).
    pub(crate) stopped: bool,
    column: usize,
    /// Column at which the line began.
    line_column: usize,
}

/// A raw read's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Something to return, maybe an end of file.
    Ready,
    /// Nothing yet.
    Wait,
    /// `VMIN` and `VTIME` are zero: a read returns at once with nothing.
    Empty,
}

impl Ldisc {
    fn special(&self, index: usize) -> Option<u8> {
        self.termios.cc.get(index).copied().filter(|c| *c != DISABLED)
    }

    fn is(&self, byte: u8, index: usize) -> bool {
        self.special(index) == Some(byte)
    }

    fn local(&self, mode: LocalModes) -> bool {
        self.termios.local().contains(mode)
    }

    /// Takes a new setting. Leaving canonical mode makes the unfinished line readable.
    pub(crate) fn set_termios(&mut self, termios: Termios) {
        let was_canonical = self.local(LocalModes::ICANON);
        self.termios = termios;
        if was_canonical && !self.local(LocalModes::ICANON) {
            let line = std::mem::take(&mut self.line);
            if !line.is_empty() {
                self.push(line, false);
            }
            self.literal = false;
        }
        if !self.termios.input().contains(InputModes::IXON) {
            self.stopped = false;
        }
    }

    fn push(&mut self, bytes: Vec<u8>, line: bool) {
        self.ready_len += bytes.len();
        match self.ready.back_mut() {
            Some(last) if !line && !last.line => last.bytes.extend(bytes),
            _ => self.ready.push_back(Chunk { bytes: bytes.into(), line }),
        }
    }

    /// Bytes of input that may come in now. In canonical mode an overlong line is dropped, not held back,
    /// or a newline could never arrive.
    pub(crate) fn input_room(&self) -> usize {
        // An empty line counts as a byte, so that ends of file are bounded too.
        QUEUE_MAX.saturating_sub(self.ready_len + self.ready.len() + self.line.len())
    }

    /// Bytes a reader could take.
    pub(crate) fn input_len(&self) -> usize {
        self.ready_len
    }

    /// Bytes the master could take.
    pub(crate) fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Discards input.
    pub(crate) fn flush_input(&mut self) {
        self.ready.clear();
        self.line.clear();
        (self.ready_len, self.literal) = (0, false);
    }

    /// Discards output.
    pub(crate) fn flush_output(&mut self) {
        self.output.clear();
    }

    /// Input from the master's side.
    pub(crate) fn receive(&mut self, bytes: &[u8], effects: &mut Effects) {
        for byte in bytes {
            self.receive_byte(*byte, effects);
        }
    }

    fn receive_byte(&mut self, byte: u8, effects: &mut Effects) {
        let input = self.termios.input();
        let byte = if input.contains(InputModes::ISTRIP) { byte & 0x7f } else { byte };
        if std::mem::take(&mut self.literal) {
            self.echo(byte);
            self.store(byte);
            return;
        }
        if self.flow_control(byte, input) || self.signal_character(byte, effects) {
            return;
        }
        let byte = match byte {
            b'\r' if input.contains(InputModes::IGNCR) => return,
            b'\r' if input.contains(InputModes::ICRNL) => b'\n',
            b'\n' if input.contains(InputModes::INLCR) => b'\r',
            other => other,
        };
        if self.local(LocalModes::ICANON) {
            self.receive_canonical(byte);
        } else {
            if self.input_room() > 0 {
                self.push(vec![byte], false);
            }
            self.echo(byte);
        }
    }

    fn flow_control(&mut self, byte: u8, input: InputModes) -> bool {
        if !input.contains(InputModes::IXON) {
            return false;
        }
        if self.is(byte, cc::VSTOP) && !(self.stopped && self.is(byte, cc::VSTART)) {
            self.stopped = true;
            return true;
        }
        if self.is(byte, cc::VSTART) {
            self.stopped = false;
            return true;
        }
        if input.contains(InputModes::IXANY) {
            self.stopped = false;
        }
        false
    }

    fn signal_character(&mut self, byte: u8, effects: &mut Effects) -> bool {
        if !self.local(LocalModes::ISIG) {
            return false;
        }
        let signal = if self.is(byte, cc::VINTR) {
            Signal::SIGINT
        } else if self.is(byte, cc::VQUIT) {
            Signal::SIGQUIT
        } else if self.is(byte, cc::VSUSP) {
            Signal::SIGTSTP
        } else {
            return false;
        };
        if !self.local(LocalModes::NOFLSH) {
            self.flush_input();
            self.flush_output();
        }
        self.stopped = false;
        self.echo(byte);
        effects.signals.push(signal);
        true
    }

    fn receive_canonical(&mut self, byte: u8) {
        let extended = self.local(LocalModes::IEXTEN);
        if self.is(byte, cc::VERASE) {
            self.erase_character();
        } else if extended && self.is(byte, cc::VWERASE) {
            self.erase_word();
        } else if self.is(byte, cc::VKILL) {
            self.kill_line(byte);
        } else if extended && self.is(byte, cc::VLNEXT) {
            self.literal = true;
            if self.local(LocalModes::ECHO | LocalModes::ECHOCTL) {
                self.emit_all(b"^\x08");
            }
        } else if extended && self.is(byte, cc::VREPRINT) && self.local(LocalModes::ECHO) {
            self.reprint(byte);
        } else if self.is(byte, cc::VEOF) {
            self.end_line();
        } else if byte == b'\n' {
            if self.local(LocalModes::ECHO) || self.local(LocalModes::ECHONL) {
                self.output_byte(b'\n');
            }
            self.line.push(byte);
            self.end_line();
        } else if self.is(byte, cc::VEOL) || (extended && self.is(byte, cc::VEOL2)) {
            self.echo(byte);
            self.line.push(byte);
            self.end_line();
        } else {
            self.store_echoing(byte);
        }
    }

    fn store_echoing(&mut self, byte: u8) {
        if self.line.len() + 1 >= LINE_MAX {
            if self.termios.input().contains(InputModes::IMAXBEL) {
                self.emit(b'\x07');
            }
            return;
        }
        self.echo(byte);
        self.store(byte);
    }

    fn store(&mut self, byte: u8) {
        if !self.local(LocalModes::ICANON) {
            if self.input_room() > 0 {
                self.push(vec![byte], false);
            }
        } else if self.line.len() + 1 < LINE_MAX {
            self.line.push(byte);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        // A queue full of lines drops further ones; a reader is far behind then.
        if self.ready_len + self.ready.len() + line.len() < QUEUE_MAX + LINE_MAX {
            self.push(line, true);
        }
        self.line_column = self.column;
    }

    /// Width on the screen of `line[..]`'s last character that begins at `at`.
    fn width(&self, at: usize) -> usize {
        let mut column = self.line_column;
        let mut width = 0;
        for (index, byte) in self.line.iter().enumerate() {
            width = match byte {
                b'\t' => 8 - column % 8,
                0..=0x1f | 0x7f if self.local(LocalModes::ECHOCTL) => 2,
                0..=0x1f | 0x7f => 0,
                0x80..=0xbf if self.termios.input().contains(InputModes::IUTF8) => 0,
                _ => 1,
            };
            column += width;
            if index == at {
                break;
            }
        }
        width
    }

    fn erase_character(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let utf8 = self.termios.input().contains(InputModes::IUTF8);
        let mut start = self.line.len() - 1;
        while utf8 && start > 0 && self.line.get(start).is_some_and(|b| b & 0xc0 == 0x80) {
            start -= 1;
        }
        let width = self.width(start);
        self.line.truncate(start);
        if !self.local(LocalModes::ECHO) {
            return;
        }
        if self.local(LocalModes::ECHOE) {
            for _ in 0..width {
                self.emit_all(b"\x08 \x08");
            }
            self.column = self.column.saturating_sub(width);
        } else if let Some(erase) = self.special(cc::VERASE) {
            self.echo(erase);
        }
    }

    fn erase_word(&mut self) {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        while self.line.last().is_some_and(|b| !is_word(b)) {
            self.erase_character();
        }
        while self.line.last().is_some_and(is_word) {
            self.erase_character();
        }
    }

    fn kill_line(&mut self, byte: u8) {
        let echo = self.local(LocalModes::ECHO);
        if echo && self.local(LocalModes::ECHOKE | LocalModes::ECHOE) {
            while !self.line.is_empty() {
                self.erase_character();
            }
            return;
        }
        self.line.clear();
        if echo {
            self.echo(byte);
            if self.local(LocalModes::ECHOK) {
                self.output_byte(b'\n');
            }
        }
    }

    fn reprint(&mut self, byte: u8) {
        self.echo(byte);
        self.output_byte(b'\n');
        let line = std::mem::take(&mut self.line);
        for byte in &line {
            self.echo(*byte);
        }
        self.line = line;
    }

    /// Echoes a character as the local modes say.
    fn echo(&mut self, byte: u8) {
        if !self.local(LocalModes::ECHO) {
            return;
        }
        let is_control = matches!(byte, 0..=0x1f | 0x7f) && byte != b'\t' && byte != b'\n';
        if is_control && self.local(LocalModes::ECHOCTL) {
            self.emit_all(&[b'^', byte ^ 0x40]);
            self.column += 2;
        } else {
            self.output_byte(byte);
        }
    }

    /// Puts a byte into the output as it is; a full queue drops it (echo only, writers ask for room).
    fn emit(&mut self, byte: u8) {
        if self.output.len() < QUEUE_MAX + LINE_MAX {
            self.output.push_back(byte);
        }
    }

    fn emit_all(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.emit(*byte);
        }
    }

    /// Bytes a writer may hand over now: each may become as many as a tab has columns.
    pub(crate) fn output_room(&self) -> usize {
        if self.stopped { 0 } else { QUEUE_MAX.saturating_sub(self.output.len()) / 8 }
    }

    /// Output from the slave's side; the caller has asked for [`output_room`](Self::output_room).
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.output_byte(*byte);
        }
        self.line_column = self.column;
    }

    fn output_byte(&mut self, byte: u8) {
        let modes = self.termios.output();
        if !modes.contains(OutputModes::OPOST) {
            return self.emit(byte);
        }
        match byte {
            b'\n' => {
                if modes.contains(OutputModes::ONLCR) {
                    self.emit(b'\r');
                }
                if modes.intersects(OutputModes::ONLCR | OutputModes::ONLRET) {
                    self.column = 0;
                }
                self.emit(b'\n');
            }
            b'\r' if modes.contains(OutputModes::ONOCR) && self.column == 0 => {}
            b'\r' if modes.contains(OutputModes::OCRNL) => self.emit(b'\n'),
            b'\r' => {
                self.column = 0;
                self.emit(byte);
            }
            b'\t' => {
                let spaces = 8 - self.column % 8;
                self.column += spaces;
                if modes.contains(OutputModes::XTABS) {
                    (0..spaces).for_each(|_| self.emit(b' '));
                } else {
                    self.emit(byte);
                }
            }
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                self.emit(byte);
            }
            _ => {
                let moves = !matches!(byte, 0..=0x1f | 0x7f..=0xbf);
                self.column = self.column.wrapping_add(usize::from(moves));
                self.emit(byte);
            }
        }
    }

    /// What a read of `want` bytes would find. `partial`: less than `VMIN` will do.
    pub(crate) fn readiness(&self, want: usize, partial: bool) -> Readiness {
        if self.local(LocalModes::ICANON) {
            return if self.ready.is_empty() { Readiness::Wait } else { Readiness::Ready };
        }
        let min = usize::from(self.termios.cc[cc::VMIN]);
        let time = self.termios.cc[cc::VTIME];
        // With a time between bytes a reader cannot wait for more here; it gets what there is.
        let enough = if partial || time > 0 { 1 } else { min.clamp(1, want.max(1)) };
        match self.ready_len {
            len if len >= enough => Readiness::Ready,
            _ if min == 0 && time == 0 => Readiness::Empty,
            _ => Readiness::Wait,
        }
    }

    /// Takes input for a read of `want` bytes; nothing for an end of file.
    pub(crate) fn take_input(&mut self, want: usize) -> Vec<u8> {
        let canonical = self.local(LocalModes::ICANON);
        let mut out = Vec::new();
        while out.len() < want {
            let Some(chunk) = self.ready.front_mut() else { break };
            let n = chunk.bytes.len().min(want - out.len());
            out.extend(chunk.bytes.drain(..n));
            let (empty, line) = (chunk.bytes.is_empty(), chunk.line);
            if empty {
                self.ready.pop_front();
            }
            if canonical && (line || !empty) {
                break;
            }
        }
        self.ready_len -= out.len();
        out
    }

    /// Puts undelivered input back to the front.
    pub(crate) fn give_back(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.ready_len += rest.len();
            self.ready.push_front(Chunk { bytes: rest.iter().copied().collect(), line: false });
        }
    }

    /// Takes output for the master.
    pub(crate) fn take_output(&mut self, want: usize) -> Vec<u8> {
        let n = want.min(self.output.len());
        self.output.drain(..n).collect()
    }

    /// Puts undelivered output back.
    pub(crate) fn give_output_back(&mut self, rest: &[u8]) {
        rest.iter().rev().for_each(|byte| self.output.push_front(*byte));
    }
}

#[cfg(test)]
mod tests;
