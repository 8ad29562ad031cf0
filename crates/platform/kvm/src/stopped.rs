//! A guest thread during its trap, as its handler sees it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use platform::{AddressSpace, GuestThread, NewThread, PlatformError, Registers, ThreadHandle};

use crate::process::Process;
use crate::task::{Place, Task, ours, start};

/// See the module.
pub(crate) struct Stopped {
    pub(crate) task: Arc<Task>,
    pub(crate) registers: Rc<RefCell<Registers>>,
}

impl Stopped {
    /// Starts a thread that has this one's floating-point state, unless it is told another.
    fn start(&mut self, place: Place, new: NewThread) -> Result<Arc<Task>, PlatformError> {
        let state = if new.fp_state.is_none() { Some(self.fp_state()?) } else { None };
        start(&self.task.shared, place, new, state)
    }
}

impl GuestThread for Stopped {
    fn registers(&mut self) -> Result<Registers, PlatformError> {
        Ok(*self.registers.borrow())
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError> {
        let mut registers = *registers;
        registers.sanitise();
        *self.registers.borrow_mut() = registers;
        Ok(())
    }

    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError> {
        self.task.shared.pool.fp_state(self.task.owner)
    }

    fn set_fp_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        self.task.shared.pool.set_fp_state(self.task.owner, Some(state))
    }

    fn reset_fp_state(&mut self) -> Result<(), PlatformError> {
        self.task.shared.pool.set_fp_state(self.task.owner, None)
    }

    fn address_space(&self) -> Arc<dyn AddressSpace> {
        self.task.place().space
    }

    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        Ok(self.start(self.task.place(), new)?)
    }

    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let place = Place { space: self.task.place().space, process: Arc::new(Process::default()) };
        Ok(self.start(place, new)?)
    }

    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError> {
        let space = self.task.place().space.fork()?;
        let place = Place { space: Arc::clone(&space), process: Arc::new(Process::default()) };
        Ok((space, self.start(place, new)?))
    }

    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let space = ours(&self.task.shared, &space)?;
        space.enter()?;
        let process = Arc::new(Process::default());
        process.join(&self.task);
        let Some(old) = self.task.move_to(Place { space: Arc::clone(&space), process }) else {
            space.leave(Default::default);
            return Err(PlatformError::Gone);
        };
        // Other threads of the old process end with it.
        old.process.leave(&self.task);
        old.process.kill();
        // Its time goes with it.
        old.space.leave(Default::default);
        self.reset_fp_state()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::clone(&self.task) as Arc<dyn ThreadHandle>
    }
}
