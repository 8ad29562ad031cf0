//! Pending signals (`signal(7)`, "Queueing and delivery semantics").

use std::collections::VecDeque;

use abi::signal::{SI_TIMER, SigInfo, SigSet, Signal};

/// Signals a fault raises: delivered before others, as they belong to the instruction at hand.
const SYNCHRONOUS: SigSet = SigSet::of(Signal::SIGSEGV)
    .with(Signal::SIGBUS)
    .with(Signal::SIGILL)
    .with(Signal::SIGTRAP)
    .with(Signal::SIGFPE)
    .with(Signal::SIGSYS);

/// The queue holds as many records as its limit allows: `EAGAIN` to `sigqueue(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl From<QueueFull> for abi::Errno {
    fn from(_: QueueFull) -> Self {
        Self::EAGAIN
    }
}

/// What is pending. Standard signals at most once each, real-time signals in order, bounded.
#[derive(Clone, Debug, Default)]
pub struct SignalQueue {
    pending: SigSet,
    infos: VecDeque<SigInfo>,
}

impl SignalQueue {
    /// Which are pending.
    pub fn pending(&self) -> SigSet {
        self.pending
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Nothing pending?
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds one. At most `limit` (`RLIMIT_SIGPENDING`) records are kept: past it a signal of `kill(2)`
    /// stays pending without its record, and a real-time one of `sigqueue(3)` is refused.
    /// `Ok(false)`: a standard signal that is pending already.
    pub fn push(&mut self, signal: Signal, info: SigInfo, limit: u64) -> Result<bool, QueueFull> {
        if !signal.is_realtime() && self.pending.contains(signal) {
            return Ok(false);
        }
        // Standard signals always find room: there are only 31 of them.
        if signal.is_realtime() && self.infos.len() as u64 >= limit {
            if info.code < 0 {
                return Err(QueueFull);
            }
            self.pending.insert(signal);
            return Ok(true);
        }
        self.pending.insert(signal);
        self.infos.push_back(info);
        Ok(true)
    }

    /// When a signal of timer `id` is still pending (`SI_TIMER`), lets it stand for `more` expiries as
    /// well; returns how many it then stands for beyond its own.
    pub fn add_overrun(&mut self, signal: Signal, id: i32, more: u64) -> Option<u64> {
        let number = i32::from(signal.number());
        let is = |info: &&mut SigInfo| info.signo == number && info.code == SI_TIMER && info.pid() == id;
        let info = self.infos.iter_mut().find(is)?;
        let overrun = u64::from(info.overrun().unsigned_abs()).saturating_add(more).min(i32::MAX as u64);
        info.put(4, &(overrun as i32).to_le_bytes());
        Some(overrun)
    }

    /// Takes the next one in `wanted`: synchronous first, then the lowest number, then the oldest.
    pub fn take(&mut self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let ready = self.pending.intersection(wanted);
        let signal = ready.intersection(SYNCHRONOUS).first().or_else(|| ready.first())?;
        let is = |info: &SigInfo| info.signo == i32::from(signal.number());
        let info = self.infos.iter().position(is).and_then(|at| self.infos.remove(at));
        if !self.infos.iter().any(is) {
            self.pending.remove(signal);
        }
        Some((signal, info.unwrap_or(SigInfo::new(signal, abi::signal::SI_USER))))
    }

    /// Drops all of `signals`.
    pub fn discard(&mut self, signals: SigSet) {
        self.pending = self.pending.difference(signals);
        let pending = self.pending;
        self.infos.retain(|info| Signal::new(info.signo).is_some_and(|s| pending.contains(s)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rt(value: u64) -> (Signal, SigInfo) {
        let signal = Signal::new(40).expect("a signal");
        (signal, SigInfo::from_sender(signal, abi::signal::SI_QUEUE, 1, 0).with_value(value))
    }

    #[test]
    fn standard_signals_collapse_and_realtime_ones_queue_in_order() {
        let mut queue = SignalQueue::default();
        let info = SigInfo::new(Signal::SIGUSR1, 0);
        assert_eq!(queue.push(Signal::SIGUSR1, info, 8), Ok(true));
        assert_eq!(queue.push(Signal::SIGUSR1, info, 8), Ok(false));
        for value in [7, 8] {
            let (signal, info) = rt(value);
            assert_eq!(queue.push(signal, info, 8), Ok(true));
        }
        assert_eq!(queue.take(SigSet::FULL).map(|(s, _)| s), Some(Signal::SIGUSR1));
        assert_eq!(queue.take(SigSet::FULL), Some(rt(7)));
        assert_eq!(queue.take(SigSet::FULL), Some(rt(8)));
        assert_eq!(queue.take(SigSet::FULL), None);
    }

    #[test]
    fn a_timer_has_one_signal_pending_that_counts() {
        let mut queue = SignalQueue::default();
        let signal = Signal::new(40).expect("a signal");
        assert_eq!(queue.add_overrun(signal, 3, 1), None);
        let mut info = SigInfo::new(signal, SI_TIMER);
        info.put(0, &3i32.to_le_bytes());
        assert_eq!(queue.push(signal, info, 8), Ok(true));
        assert_eq!(queue.add_overrun(signal, 4, 1), None);
        assert_eq!(queue.add_overrun(signal, 3, 2), Some(2));
        assert_eq!(queue.add_overrun(signal, 3, u64::MAX), Some(i32::MAX as u64));
        assert_eq!(queue.take(SigSet::FULL).map(|(_, info)| info.overrun()), Some(i32::MAX));
    }

    #[test]
    fn the_limit_refuses_sigqueue_but_not_kill() {
        let mut queue = SignalQueue::default();
        let (signal, info) = rt(0);
        assert_eq!(queue.push(signal, info, 0), Err(QueueFull));
        assert_eq!(queue.push(signal, SigInfo::new(signal, 0), 0), Ok(true));
        assert_eq!(queue.take(SigSet::FULL).map(|(s, _)| s), Some(signal));
        assert!(queue.is_empty());
    }

    #[test]
    fn discarded_signals_are_gone_and_faults_come_first() {
        let mut queue = SignalQueue::default();
        for signal in [Signal::SIGHUP, Signal::SIGSEGV, Signal::SIGTSTP] {
            let _ = queue.push(signal, SigInfo::new(signal, 0), 8);
        }
        queue.discard(crate::action::STOPS);
        assert_eq!(queue.take(SigSet::FULL).map(|(s, _)| s), Some(Signal::SIGSEGV));
        assert_eq!(queue.take(SigSet::FULL).map(|(s, _)| s), Some(Signal::SIGHUP));
        assert!(queue.is_empty());
    }
}
