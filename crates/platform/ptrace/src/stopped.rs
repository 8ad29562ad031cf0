//! A guest thread during its trap, as its handler sees it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use hostproc::ops::CLONE_THREAD;
use platform::{AddressSpace, GuestThread, NewThread, PlatformError, Registers, ThreadHandle};

use crate::layout::{CLONE_FORK, CLONE_SHARED, STUB};
use crate::process::Process;
use crate::space::{CURRENT, Current, Space};
use crate::task::{FpStart, Place, Task, ours, start};
use crate::tracee::Tracee;

/// See the module.
pub(crate) struct Stopped {
    pub(crate) task: Arc<Task>,
    /// Number of the call it is in.
    pub(crate) nr: u64,
    pub(crate) tracee: Rc<RefCell<Tracee>>,
}

impl Stopped {
    /// Makes a host thread; its id.
    fn clone_host(&self, flags: u64) -> Result<i32, PlatformError> {
        // The stack pointer is never used, but CLONE_VM demands one.
        let result =
            self.tracee.borrow_mut().call_at_gate([libc::SYS_clone as u64, flags, STUB, 0, 0, 0, 0])?;
        if result > 0 { Ok(result as i32) } else { Err(PlatformError::Exhausted("host threads")) }
    }
}

impl GuestThread for Stopped {
    fn registers(&mut self) -> Result<Registers, PlatformError> {
        Ok(Registers { orig_rax: self.nr, ..self.tracee.borrow().registers() })
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError> {
        self.tracee.borrow_mut().set_registers(registers);
        Ok(())
    }

    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError> {
        let place = self.task.place();
        Ok(place.space.shared.master.facts.get(place.tid)?)
    }

    fn set_fp_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        let place = self.task.place();
        Ok(place.space.shared.master.facts.set(place.tid, state)?)
    }

    fn reset_fp_state(&mut self) -> Result<(), PlatformError> {
        let place = self.task.place();
        Ok(place.space.shared.master.facts.reset(place.tid)?)
    }

    fn address_space(&self) -> Arc<dyn AddressSpace> {
        self.task.place().space
    }

    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let place = Place { tid: self.clone_host(CLONE_THREAD)?, ..self.task.place() };
        Ok(start(place, new, FpStart::Inherited)?)
    }

    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let tid = self.clone_host(CLONE_SHARED)?;
        let place = Place { space: self.task.place().space, process: Process::new(tid), tid };
        Ok(start(place, new, FpStart::Inherited)?)
    }

    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError> {
        let tid = self.clone_host(CLONE_FORK)?;
        let space = Space::empty(&self.task.place().space.shared);
        let place = Place { space: Arc::clone(&space), process: Process::new(tid), tid };
        Ok((space, start(place, new, FpStart::Inherited)?))
    }

    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let shared = Arc::clone(&self.task.place().space.shared);
        let space = ours(&shared, &space)?;
        let process = space.unpark()?;
        let tid = process.tgid;
        let tracee = Tracee::seize(tid, tid)?;
        shared.master.facts.reset(tid)?;
        space.enter(&self.task);
        process.join(&self.task);
        let old = self.task.move_to(Place { space: Arc::clone(&space), process, tid });
        *self.tracee.borrow_mut() = tracee;
        self.nr = u64::MAX;
        let tracee = Rc::clone(&self.tracee);
        CURRENT.set(Some(Current { space: Arc::downgrade(&space), tid, tracee }));
        old.space.leave(&self.task);
        old.process.leave(&self.task);
        old.process.kill();
        old.space.forget_agent_of(&old.process);
        shared.watch.reap(&old.process, old.tid);
        Ok(())
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::clone(&self.task) as Arc<dyn ThreadHandle>
    }
}
