//! Mapping operations, carried out by the stub: as many at once as it takes.
//!
//! What a program's start maps into a space whose first thread is parked is only written down, and carried out
//! before the first thing that could tell: each trip to the guest and back costs as much as a call of a guest's.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use abi::mm::Prot;
use hostproc::{memory, ops};
use memmap::Backing;
use parking_lot::Mutex;
use platform::{MapError, MapOp};

use crate::host::Hand;
use crate::layout::ACTIONS;
use crate::patch::{Copy, Patched, base_word};
use crate::space::Space;

/// Most operations that are written down: their files are kept open for it.
const MOST_PLANNED: usize = 64;

/// Operations that are written down.
#[derive(Default)]
pub(crate) struct Planned {
    ops: Mutex<Vec<MapOp>>,
    /// There are some.
    any: AtomicBool,
}

/// Calls for the stub, and for which operation each is.
#[derive(Default)]
struct Plan {
    calls: Vec<(usize, ops::Call)>,
    /// Rewritten copies that they map, by operation.
    copies: Vec<(usize, Arc<Copy>)>,
}

impl Plan {
    /// Has them made, in order, up to the first that fails.
    fn run(&mut self, space: &Space, actor: &Hand<'_>) -> Result<(), MapError> {
        let (calls, copies) = (std::mem::take(&mut self.calls), std::mem::take(&mut self.copies));
        let plain: Vec<_> = calls.iter().map(|(_, call)| *call).collect();
        let failed = match actor.run(space, &plain) {
            Ok(results) => {
                let Some(errno) = results.last().and_then(|last| ops::outcome(*last).err()) else {
                    return Ok(());
                };
                let at = results.len() - 1;
                let open = |call: &&ops::Call| call.first() == Some(&(libc::SYS_close as u64));
                let closes: Vec<_> = plain.iter().skip(at).filter(open).copied().collect();
                // The space is done for if that fails, and its next action says so.
                let _ = actor.run(space, &closes);
                MapError { index: calls.get(at).map_or(0, |(index, _)| *index), errno }
            }
            Err(_) => MapError { index: 0, errno: Errno::ESRCH },
        };
        for (_, copy) in copies.iter().filter(|(index, _)| *index >= failed.index) {
            space.patched.write().retain(|other| !Arc::ptr_eq(&other.copy, copy));
        }
        Err(failed)
    }
}

impl Space {
    /// Maps, or writes down that it is to be done.
    pub(crate) fn map(&self, ops: &[MapOp]) -> Result<(), MapError> {
        if self.parked.lock().is_none() {
            return self.carry_out(ops);
        }
        let mut planned = self.planned.ops.lock();
        planned.extend_from_slice(ops);
        self.planned.any.store(true, Ordering::SeqCst);
        if planned.len() < MOST_PLANNED {
            return Ok(());
        }
        drop(planned);
        self.settle()
    }

    /// Carries out what is written down.
    ///
    /// # Errors
    /// One of it has failed; the space is no good then, and ends.
    pub(crate) fn settle(&self) -> Result<(), MapError> {
        if !self.planned.any.load(Ordering::SeqCst) {
            return Ok(());
        }
        let planned = {
            let ops = &mut *self.planned.ops.lock();
            self.planned.any.store(false, Ordering::SeqCst);
            std::mem::take(ops)
        };
        let done = self.carry_out(&planned);
        if let (Err(error), Some(host)) = (&done, &*self.parked.lock()) {
            tracing::debug!(%error, "a new program could not be mapped");
            host.process.kill();
        }
        done
    }

    fn carry_out(&self, ops: &[MapOp]) -> Result<(), MapError> {
        let mut done = Ok(());
        let acted = self.act(|actor| {
            done = self.plan(actor, ops);
            Ok(())
        });
        acted.map_err(|error| MapError { index: 0, errno: error.into() })?;
        done
    }

    fn plan(&self, actor: &Hand<'_>, ops: &[MapOp]) -> Result<(), MapError> {
        let mut plan = Plan::default();
        for (index, op) in ops.iter().enumerate() {
            let failed = |errno| MapError { index, errno };
            if plan.calls.len() + 2 > ACTIONS || self.moves_patched(op) {
                plan.run(self, actor)?;
            }
            self.unpatch(actor, op).map_err(failed)?;
            let copy = self.patch(op);
            let mut fd = None;
            if let Some(object) = ops::object(op) {
                let raw =
                    copy.as_ref().map_or_else(|| object.as_fd().as_raw_fd(), |copy| copy.object.as_raw_fd());
                fd = Some(actor.give_fd(self, raw).map_err(|error| failed(error.into()))? as u64);
            }
            let mut call = ops::call(op, fd.unwrap_or(u64::MAX));
            if let (Some(_), [.., offset]) = (&copy, &mut call) {
                // A copy begins where the piece does.
                *offset = 0;
            }
            plan.calls.push((index, call));
            plan.calls.extend(fd.map(|fd| (index, ops::close(fd))));
            plan.copies.extend(copy.map(|copy| (index, copy)));
        }
        plan.run(self, actor)
    }

    /// Whether `op` moves rewritten code, which acts by itself.
    fn moves_patched(&self, op: &MapOp) -> bool {
        let MapOp::Remap { from, from_len, .. } = op else { return false };
        self.patched.read().iter().any(|patched| patched.overlaps(from.0, *from_len))
    }

    /// A rewritten copy to map instead of a piece of a file, if there is one that may be used here.
    fn patch(&self, op: &MapOp) -> Option<Arc<Copy>> {
        let patches = self.shared.patches.as_ref()?;
        let MapOp::Map { addr, len, prot, backing: Backing::Host { object, offset }, shared: false, .. } = op
        else {
            return None;
        };
        if !prot.contains(Prot::EXEC) || prot.contains(Prot::WRITE) {
            return None;
        }
        let copy = patches.copy(object, *offset, *len)?;
        // A cell finds back to one place only.
        if self.patched.read().iter().any(|other| other.copy.file == copy.file) {
            return None;
        }
        if memory::write(self.pid(), base_word(copy.file), &addr.0.to_le_bytes()) != 8 {
            return None;
        }
        let (object, offset) = (Arc::clone(object), *offset);
        let patched =
            Patched { base: addr.0, len: *len, copy: Arc::clone(&copy), object, offset, prot: *prot };
        self.patched.write().push(patched);
        Some(copy)
    }

    /// What `op` does to rewritten code: it is forgotten where it goes, and made what it was before it is moved.
    fn unpatch(&self, actor: &Hand<'_>, op: &MapOp) -> Result<(), Errno> {
        if self.patched.read().is_empty() {
            return Ok(());
        }
        match op {
            MapOp::Map { addr, len, .. } | MapOp::Unmap { addr, len } => {
                self.patched.write().retain(|patched| !patched.is_within(addr.0, *len));
            }
            MapOp::Remap { from, from_len, to, to_len, .. } => {
                let moved: Vec<_> = {
                    let mut patched = self.patched.write();
                    patched.retain(|patched| from == to || !patched.is_within(to.0, *to_len));
                    let moved = patched.iter().filter(|patched| patched.overlaps(from.0, *from_len));
                    moved.cloned().collect()
                };
                for patched in moved {
                    let fd =
                        actor.give_fd(self, patched.object.as_fd().as_raw_fd()).map_err(Errno::from)? as u64;
                    let flags = (libc::MAP_FIXED | libc::MAP_PRIVATE) as u64;
                    let prot = u64::from(patched.prot.bits());
                    let (base, len) = (patched.base, patched.len);
                    let map = [libc::SYS_mmap as u64, base, len, prot, flags, fd, patched.offset];
                    actor.run(self, &[map, ops::close(fd)]).map_err(|_| Errno::ESRCH)?;
                    self.patched.write().retain(|other| other.base != base);
                }
            }
            MapOp::Protect { .. } | MapOp::Advise { .. } => {}
        }
        Ok(())
    }
}
