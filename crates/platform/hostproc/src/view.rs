//! What must be looked up before the host's `/proc` goes.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use guestmem::{Fault, UserAddr};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use platform::space::MemoryUse;

use crate::vdso::Vdso;

/// Longest `stat` or `statm` of a process: some fifty numbers.
const LINE_MAX: usize = 2048;

/// The host's `/proc`, and where our vDSO is. What is missing costs guests the vDSO, and their kernel the
/// sizes and times of processes and writes over page protections, but nothing else.
#[derive(Clone, Debug, Default)]
pub struct HostView {
    proc: Option<Arc<OwnedFd>>,
    vdso: Option<Vdso>,
}

impl HostView {
    /// Looks into `/proc`. It must be of our own pid namespace, or it is not kept: guests would be looked up by
    /// numbers that mean others there.
    pub fn take() -> Self {
        let vdso = Vdso::find(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default());
        let proc = File::open("/proc")
            .ok()
            .map(OwnedFd::from)
            .filter(|_| is_our_namespace(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()));
        Self { proc: proc.map(Arc::new), vdso }
    }

    /// Where our vDSO is, if we know.
    pub fn vdso(&self) -> Option<&Vdso> {
        self.vdso.as_ref()
    }

    /// Opens a file of the host's `/proc`.
    pub fn open(&self, path: &str, flags: OFlag) -> std::io::Result<File> {
        let proc = self.proc.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        Ok(openat(proc, path, flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// The text of a file of the host's `/proc`; empty when it is gone.
    pub fn text(&self, path: &str) -> String {
        let mut text = String::new();
        let read = self.open(path, OFlag::O_RDONLY).and_then(|mut file| file.read_to_string(&mut text));
        if read.is_err() { String::new() } else { text }
    }

    /// The line that a file of the host's `/proc` is, in one read; empty when it is gone.
    fn line(&self, path: &str) -> String {
        let mut line = [0; LINE_MAX];
        let read = self.open(path, OFlag::O_RDONLY).and_then(|mut file| file.read(&mut line));
        let line = line.get(..read.unwrap_or(0)).unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// User and system time of a process (`PID`) or a thread (`PID/task/TID`); zero when it is gone.
    pub fn times(&self, of: &str) -> (Duration, Duration) {
        stat_times(&self.line(&format!("{of}/stat")))
    }

    /// What the memory of `pid` takes; nothing when it is gone. What it takes now stands for its peak.
    pub fn memory_use(&self, pid: i32) -> MemoryUse {
        let text = self.line(&format!("{pid}/statm"));
        let mut pages = text.split_whitespace().skip(1).filter_map(|w| w.parse::<u64>().ok());
        let resident = pages.next().unwrap_or(0) * 4096;
        MemoryUse { resident, shared: pages.next().unwrap_or(0) * 4096, peak_resident: resident }
    }

    /// Which of the pages at `addr` of `pid` are in memory or in swap (`proc_pid_pagemap(5)`).
    ///
    /// # Errors
    /// `ESRCH` when it is gone, `ENOMEM` for a range that is none.
    pub fn resident_pages(&self, pid: i32, addr: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        let file = self.open(&format!("{pid}/pagemap"), OFlag::O_RDONLY).map_err(|_| Errno::ESRCH)?;
        let mut words = vec![0; pages.checked_mul(8).ok_or(Errno::ENOMEM)?];
        file.read_exact_at(&mut words, addr.0 / 4096 * 8).map_err(|_| Errno::ENOMEM)?;
        Ok(words.chunks_exact(8).map(|w| w.last().is_some_and(|top| top & 0xc0 != 0)).collect())
    }

    /// Writes over page protections of `pid` (`proc_pid_mem(5)`).
    ///
    /// # Errors
    /// Not all of it could be written.
    pub fn write_forced(&self, pid: i32, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        let fault = |_| Fault { copied: 0 };
        let file = self.open(&format!("{pid}/mem"), OFlag::O_WRONLY).map_err(fault)?;
        file.write_all_at(buf, addr.0).map_err(fault)
    }
}

/// User and system time from a `stat` file of the host; zero when it is empty.
fn stat_times(text: &str) -> (Duration, Duration) {
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = after.split_whitespace().skip(11).filter_map(|w| w.parse::<u64>().ok());
    let mut next = || Duration::from_millis(ticks.next().unwrap_or(0) * 10);
    (next(), next())
}

/// Whether a `/proc/self/status` gives one number only: that of the innermost namespace we are in.
fn is_our_namespace(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}

#[cfg(test)]
mod tests {
    use super::is_our_namespace;

    #[test]
    fn a_proc_of_another_namespace_is_known() {
        assert!(is_our_namespace("Name:\tx\nNSpid:\t12\n"));
        assert!(!is_our_namespace("Name:\tx\nNSpid:\t1200\t1\n"));
        assert!(!is_our_namespace(""));
    }
}
