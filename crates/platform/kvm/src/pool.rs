//! Virtual processors, and which guest thread has one.
//!
//! A thread that leaves its guest parks its processor, with its floating-point state on it, and mostly finds it again
//! as it was. When there are no more to be made, another thread takes it, and the state is kept here until its owner
//! comes back. When all of them run, whoever waits has one of the others stopped. When the host makes no more of them
//! (they take descriptors and memory), those that there are have to do.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use platform::PlatformError;

use crate::machine::Machine;
use crate::vcpu::Vcpu;

/// How long to wait for a processor before another is stopped.
const PATIENCE: Duration = Duration::from_millis(2);

/// Names a guest thread.
pub(crate) type Owner = u64;

#[derive(Default)]
struct State {
    parked: HashMap<Owner, Box<Vcpu>>,
    saved: HashMap<Owner, Vec<u8>>,
    #[allow(clippy::vec_box)] // They come from and go to places that hold boxes.
    idle: Vec<Box<Vcpu>>,
    made: u64,
    most: u64,
    waiting: usize,
}

/// See the module.
pub(crate) struct Pool {
    state: Mutex<State>,
    came: Condvar,
    /// Bytes of floating-point state, and features in it.
    pub(crate) fp: (usize, u64),
}

impl Pool {
    /// One of at most `most`, of which `first` is the first; `made` numbers are taken.
    pub(crate) fn new(first: Vcpu, made: u64, most: u64, fp: (usize, u64)) -> Self {
        let state = State { idle: vec![Box::new(first)], made, most, ..State::default() };
        Self { state: Mutex::new(state), came: Condvar::new(), fp }
    }

    /// A processor with `owner`'s floating-point state on it. `poke` stops some thread that has one.
    pub(crate) fn take(
        &self,
        machine: &Machine,
        owner: Owner,
        poke: impl Fn(),
    ) -> Result<Box<Vcpu>, PlatformError> {
        let host = |doing| move |source| PlatformError::Host { doing, source };
        let mut state = self.state.lock();
        let mut waited = false;
        let vcpu = loop {
            // Whoever waits already comes first.
            if waited || state.waiting == 0 {
                if let Some(vcpu) = state.parked.remove(&owner) {
                    return Ok(vcpu);
                }
                if let Some(vcpu) = state.idle.pop() {
                    break vcpu;
                }
                if state.made < state.most {
                    let index = state.made;
                    state.made += 1;
                    drop(state);
                    let made = Vcpu::new(machine, index);
                    state = self.state.lock();
                    match made {
                        Ok(made) => break Box::new(made),
                        Err(error) => {
                            let made = index;
                            tracing::warn!(%error, made, "the host makes no more virtual processors; guests share those");
                            state.most = 0;
                            continue;
                        }
                    }
                }
                if let Some(other) = state.parked.keys().next().copied()
                    && let Some(vcpu) = state.parked.remove(&other)
                {
                    let saved = vcpu.fp_state(self.fp.0).map_err(host("saving vector registers"))?;
                    state.saved.insert(other, saved);
                    break vcpu;
                }
            }
            state.waiting += 1;
            if self.came.wait_for(&mut state, PATIENCE).timed_out() {
                drop(state);
                poke();
                state = self.state.lock();
            }
            state.waiting -= 1;
            waited = true;
        };
        let saved = state.saved.remove(&owner);
        drop(state);
        vcpu.set_fp_state(saved.as_deref(), self.fp.0, self.fp.1)
            .map_err(host("loading vector registers"))?;
        Ok(vcpu)
    }

    /// Leaves it where `owner` finds it again, unless somebody needs it more.
    pub(crate) fn park(&self, owner: Owner, vcpu: Box<Vcpu>) {
        let mut state = self.state.lock();
        state.parked.insert(owner, vcpu);
        if state.waiting > 0 {
            self.came.notify_one();
        }
    }

    /// `owner` has ended.
    pub(crate) fn forget(&self, owner: Owner) {
        let mut state = self.state.lock();
        state.saved.remove(&owner);
        if let Some(vcpu) = state.parked.remove(&owner) {
            state.idle.push(vcpu);
            self.came.notify_one();
        }
    }

    /// Floating-point state of a thread that is not in its guest.
    pub(crate) fn fp_state(&self, owner: Owner) -> Result<Vec<u8>, PlatformError> {
        let state = self.state.lock();
        if let Some(vcpu) = state.parked.get(&owner) {
            let doing = "saving vector registers";
            return vcpu.fp_state(self.fp.0).map_err(|source| PlatformError::Host { doing, source });
        }
        Ok(state.saved.get(&owner).cloned().unwrap_or_else(|| crate::fpstate::reset(self.fp.0)))
    }

    /// Replaces it; `None` is the reset state.
    pub(crate) fn set_fp_state(&self, owner: Owner, new: Option<&[u8]>) -> Result<(), PlatformError> {
        let mut state = self.state.lock();
        if let Some(vcpu) = state.parked.get(&owner) {
            let doing = "loading vector registers";
            let set = vcpu.set_fp_state(new, self.fp.0, self.fp.1);
            return set.map_err(|source| PlatformError::Host { doing, source });
        }
        match new {
            Some(new) => state.saved.insert(owner, new.to_vec()),
            None => state.saved.remove(&owner),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::Pool;
    use crate::machine::Machine;

    #[test]
    fn those_that_there_are_have_to_do() {
        let device = File::options().read(true).write(true).open(crate::DEVICE).expect("/dev/kvm is there");
        let mut machine = Machine::new(device.into(), 64 << 20).expect("a machine");
        let first = machine.first_cpu().expect("a processor");
        let fp = machine.fp_facts(&first).expect("its features");
        // No machine has a processor of that number.
        let pool = Arc::new(Pool::new(first, 1 << 30, u64::MAX, fp));
        let poked = std::sync::atomic::AtomicU32::new(0);
        let held = pool.take(&machine, 1, || ()).expect("the first");
        let poke = || {
            poked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| pool.take(&machine, 2, poke).map(|vcpu| pool.park(2, vcpu)));
            while poked.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            pool.park(1, held);
            other.join().expect("no panic").expect("the same, later");
        });
        let again = pool.take(&machine, 1, || ()).expect("it is parked");
        pool.park(1, again);
        assert!(pool.fp_state(1).is_ok());
    }
}
