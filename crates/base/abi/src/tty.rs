//! Terminals: `termios`, window size (`termios(3)`, `ioctl_tty(2)`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Input modes (`c_iflag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InputModes: u32 {
        /// Strip the eighth bit.
        const ISTRIP = 0o40;
        /// NL becomes CR.
        const INLCR = 0o100;
        /// Ignore CR.
        const IGNCR = 0o200;
        /// CR becomes NL.
        const ICRNL = 0o400;
        /// Start and stop characters control output.
        const IXON = 0o2000;
        /// Any character restarts output.
        const IXANY = 0o4000;
        /// Ring the bell when the input is full.
        const IMAXBEL = 0o20000;
        /// Input is UTF-8: erase whole characters.
        const IUTF8 = 0o40000;
    }
}

bitflags! {
    /// Output modes (`c_oflag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OutputModes: u32 {
        /// Process output at all.
        const OPOST = 0o1;
        /// NL becomes CR NL.
        const ONLCR = 0o4;
        /// CR becomes NL.
        const OCRNL = 0o10;
        /// No CR at column 0.
        const ONOCR = 0o20;
        /// NL also returns the carriage.
        const ONLRET = 0o40;
        /// Tabs become spaces (both bits of `TABDLY`).
        const XTABS = 0o14000;
    }
}

bitflags! {
    /// Local modes (`c_lflag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LocalModes: u32 {
        /// Characters make signals.
        const ISIG = 0o1;
        /// Line editing.
        const ICANON = 0o2;
        /// Echo input.
        const ECHO = 0o10;
        /// Erase by overwriting.
        const ECHOE = 0o20;
        /// NL after the kill character.
        const ECHOK = 0o40;
        /// Echo NL even without `ECHO`.
        const ECHONL = 0o100;
        /// Signals do not flush.
        const NOFLSH = 0o200;
        /// Background writers get `SIGTTOU`.
        const TOSTOP = 0o400;
        /// Control characters echo as `^X`.
        const ECHOCTL = 0o1000;
        /// Erased characters are printed.
        const ECHOPRT = 0o2000;
        /// Kill erases the line on the screen.
        const ECHOKE = 0o4000;
        /// Extended editing.
        const IEXTEN = 0o100000;
    }
}

/// Entries of `c_cc`.
pub mod cc {
    /// Interrupt.
    pub const VINTR: usize = 0;
    /// Quit.
    pub const VQUIT: usize = 1;
    /// Erase a character.
    pub const VERASE: usize = 2;
    /// Erase the line.
    pub const VKILL: usize = 3;
    /// End of file.
    pub const VEOF: usize = 4;
    /// Timeout of a raw read in tenths of a second.
    pub const VTIME: usize = 5;
    /// Fewest bytes of a raw read.
    pub const VMIN: usize = 6;
    /// Start output.
    pub const VSTART: usize = 8;
    /// Stop output.
    pub const VSTOP: usize = 9;
    /// Suspend.
    pub const VSUSP: usize = 10;
    /// Another end of line.
    pub const VEOL: usize = 11;
    /// Print the line again.
    pub const VREPRINT: usize = 12;
    /// Erase a word.
    pub const VWERASE: usize = 14;
    /// Take the next character as it is.
    pub const VLNEXT: usize = 15;
    /// Yet another end of line.
    pub const VEOL2: usize = 16;
    /// Entries in all (`NCCS` of the kernel).
    pub const NCCS: usize = 19;
}

/// `struct termios` of the kernel (`TCGETS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes; kept, without effect.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline.
    pub line: u8,
    /// Special characters.
    pub cc: [u8; cc::NCCS],
}

impl Default for Termios {
    /// As a new terminal of Linux has it: cooked, echoing, 38400 baud.
    fn default() -> Self {
        Self {
            iflag: 0o2400,
            oflag: 0o5,
            cflag: 0o277,
            lflag: 0o105073,
            line: 0,
            cc: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
        }
    }
}

impl Termios {
    /// Input modes that mean something here.
    pub const fn input(&self) -> InputModes {
        InputModes::from_bits_truncate(self.iflag)
    }

    /// Output modes that mean something here.
    pub const fn output(&self) -> OutputModes {
        OutputModes::from_bits_truncate(self.oflag)
    }

    /// Local modes that mean something here.
    pub const fn local(&self) -> LocalModes {
        LocalModes::from_bits_truncate(self.lflag)
    }
}

/// `struct termios2` (`TCGETS2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Termios2 {
    /// The old structure.
    pub termios: Termios,
    /// Input speed in baud.
    pub ispeed: u32,
    /// Output speed in baud.
    pub ospeed: u32,
}

/// `struct winsize` (`TIOCGWINSZ`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Winsize {
    /// Rows in characters.
    pub rows: u16,
    /// Columns in characters.
    pub cols: u16,
    /// Width in pixels.
    pub xpixel: u16,
    /// Height in pixels.
    pub ypixel: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!((size_of::<Termios>(), size_of::<Termios2>(), size_of::<Winsize>()), (36, 44, 8));
    }
}
