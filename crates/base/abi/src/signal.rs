//! Signals: numbers, sets, `siginfo_t` and `sigaction` layouts (`signal(7)`, `sigaction(2)`).

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A signal number, `1..=64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

impl Signal {
    /// Highest signal number (`_NSIG`).
    pub const MAX: u8 = 64;
    /// First real-time signal of the kernel (`SIGRTMIN` before the C library takes its own).
    pub const RTMIN: u8 = 32;

    /// The signal with this number, when `1..=64`.
    pub const fn new(number: i32) -> Option<Self> {
        if number >= 1 && number <= Self::MAX as i32 { Some(Self(number as u8)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Queued (real-time) rather than collapsed (standard)?
    pub const fn is_realtime(self) -> bool {
        self.0 >= Self::RTMIN
    }

    /// All signals, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=Self::MAX).map(Self)
    }
}

macro_rules! signals {
    ($($name:ident = $n:literal;)*) => {
        impl Signal {
            $(#[doc = concat!("Signal ", $n, ", `", stringify!($name), "`.")] pub const $name: Self = Self($n);)*

            /// The symbolic name of a standard signal.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($n => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7; SIGFPE = 8;
    SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14; SIGTERM = 15;
    SIGSTKFLT = 16; SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20; SIGTTIN = 21; SIGTTOU = 22;
    SIGURG = 23; SIGXCPU = 24; SIGXFSZ = 25; SIGVTALRM = 26; SIGPROF = 27; SIGWINCH = 28; SIGIO = 29;
    SIGPWR = 30; SIGSYS = 31;
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRT{}", self.0 - Self::RTMIN),
        }
    }
}

/// A set of signals (`sigset_t` of the kernel: 64 bits, signal 1 is bit 0).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const FULL: Self = Self(u64::MAX);
    /// The two that can be neither caught, blocked nor ignored.
    pub const UNBLOCKABLE: Self = Self::of(Signal::SIGKILL).with(Signal::SIGSTOP);

    /// The set of one.
    pub const fn of(signal: Signal) -> Self {
        Self(1 << (signal.0 - 1))
    }

    /// With `signal` added.
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | Self::of(signal).0)
    }

    /// Is `signal` in it?
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & Self::of(signal).0 != 0
    }

    /// Adds.
    pub fn insert(&mut self, signal: Signal) {
        self.0 |= Self::of(signal).0;
    }

    /// Removes.
    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !Self::of(signal).0;
    }

    /// In either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In `self` and not in `other`.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// In both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Has no member?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Lowest member.
    pub fn first(self) -> Option<Signal> {
        Signal::new(self.0.trailing_zeros() as i32 + 1)
    }

    /// Members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |s| self.contains(*s))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `siginfo_t`: 128 bytes, a union after its 16-byte head (`sigaction(2)`).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// Errno, nearly always 0.
    pub errno: i32,
    /// `SI_*` or the cause of a fault.
    pub code: i32,
    /// Padding of the union's alignment.
    pub pad: i32,
    /// The union, as bytes; read and written through the accessors.
    pub fields: [u8; 112],
}

/// Sent by `kill(2)` (`SI_USER`).
pub const SI_USER: i32 = 0;
/// Sent by the kernel (`SI_KERNEL`).
pub const SI_KERNEL: i32 = 0x80;
/// Sent by `sigqueue(3)` (`SI_QUEUE`).
pub const SI_QUEUE: i32 = -1;
/// A POSIX timer expired (`SI_TIMER`).
pub const SI_TIMER: i32 = -2;
/// Sent by `tkill(2)` (`SI_TKILL`).
pub const SI_TKILL: i32 = -6;

impl SigInfo {
    /// A record with nothing but its head.
    pub const fn new(signal: Signal, code: i32) -> Self {
        Self { signo: signal.number() as i32, errno: 0, code, pad: 0, fields: [0; 112] }
    }

    /// `kill`, `tkill` and `sigqueue` shape: sender's pid and uid.
    pub fn from_sender(signal: Signal, code: i32, pid: i32, uid: u32) -> Self {
        let mut info = Self::new(signal, code);
        info.put(0, &pid.to_le_bytes());
        info.put(4, &uid.to_le_bytes());
        info
    }

    /// `SIGCHLD` shape: pid, uid, status, user and system time in clock ticks.
    pub fn child(code: i32, pid: i32, uid: u32, status: i32, utime: i64, stime: i64) -> Self {
        let mut info = Self::from_sender(Signal::SIGCHLD, code, pid, uid);
        info.put(8, &status.to_le_bytes());
        info.put(16, &utime.to_le_bytes());
        info.put(24, &stime.to_le_bytes());
        info
    }

    /// Fault shape: the address at fault.
    pub fn fault(signal: Signal, code: i32, addr: u64) -> Self {
        let mut info = Self::new(signal, code);
        info.put(0, &addr.to_le_bytes());
        info
    }

    /// Adds the `sigval` of a queued signal.
    pub fn with_value(mut self, value: u64) -> Self {
        self.put(8, &value.to_le_bytes());
        self
    }

    /// Pid of the sender, where the code says there is one.
    pub fn pid(&self) -> i32 {
        i32::from_le_bytes([self.fields[0], self.fields[1], self.fields[2], self.fields[3]])
    }

    /// Missed expiries, where the code says a timer sent it.
    pub fn overrun(&self) -> i32 {
        i32::from_le_bytes([self.fields[4], self.fields[5], self.fields[6], self.fields[7]])
    }

    /// Writes bytes into the union at `offset`; what does not fit is a bug of the caller and ignored.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(slot) = self.fields.get_mut(offset..offset + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    }
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigInfo")
            .field("signo", &self.signo)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// `struct sigaction` of the kernel (`rt_sigaction(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAction {
    /// `SIG_DFL` (0), `SIG_IGN` (1) or the handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// `sa_restorer`.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

/// `stack_t` (`sigaltstack(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*`.
    pub flags: u32,
    /// Padding.
    pub pad: u32,
    /// Bytes.
    pub size: u64,
}

impl Default for SigAltStack {
    /// Disabled (`SS_DISABLE`).
    fn default() -> Self {
        Self { sp: 0, flags: 2, pad: 0, size: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<SigInfo>(), 128);
        assert_eq!(size_of::<SigAction>(), 32);
        assert_eq!(size_of::<SigAltStack>(), 24);
    }

    #[test]
    fn sets_number_signals_from_bit_zero() {
        assert_eq!(SigSet::of(Signal::SIGHUP).0, 1);
        assert_eq!(SigSet::of(Signal::SIGKILL).first(), Some(Signal::SIGKILL));
        assert_eq!(SigSet::EMPTY.first(), None);
    }
}
