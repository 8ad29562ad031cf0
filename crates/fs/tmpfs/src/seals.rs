//! Seals (`memfd_create(2)`, `fcntl(2)`).

use std::sync::atomic::Ordering;

use abi::fs::Permissions;
use abi::{Errno, PAGE_SIZE};
use vfs::{Result, Seals, SetAttr};

use crate::node::{Body, Node, State};

impl State {
    fn size(&self) -> u64 {
        match &self.body {
            Body::Regular(data) => data.size(),
            _ => 0,
        }
    }

    /// May data be written?
    pub(crate) fn check_write(&self) -> Result<()> {
        let sealed = self.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE);
        if sealed { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// How many of `len` bytes can be written at `at`. As on Linux, a write beyond the end of a file that must
    /// not grow stops before the first page that would.
    pub(crate) fn writable(&self, at: u64, len: usize) -> Result<usize> {
        self.check_write()?;
        let Err(error) = self.check_grow(at.saturating_add(len as u64)) else { return Ok(len) };
        let whole = self.size() / PAGE_SIZE * PAGE_SIZE;
        if at < whole { Ok((whole - at) as usize) } else { Err(error) }
    }

    /// May the file reach to `end`?
    pub(crate) fn check_grow(&self, end: u64) -> Result<()> {
        let grows = self.seals.contains(Seals::GROW) && end > self.size();
        if grows { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// May attributes be changed so?
    pub(crate) fn check_seals(&self, change: &SetAttr) -> Result<()> {
        if let Some(size) = change.size {
            self.check_grow(size)?;
            if self.seals.contains(Seals::SHRINK) && size < self.size() {
                return Err(Errno::EPERM);
            }
        }
        let changes = |perm: Permissions| (perm ^ self.attr.perm).intersects(Permissions::EXECUTE);
        if self.seals.contains(Seals::EXEC) && change.perm.is_some_and(changes) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

impl Node {
    pub(crate) fn add_seals(&self, mut seals: Seals) -> Result<()> {
        let mut state = self.state.lock();
        if state.seals.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        let new = seals - state.seals;
        if new.contains(Seals::WRITE) && self.writable_maps.load(Ordering::SeqCst) > 0 {
            return Err(Errno::EBUSY);
        }
        if seals.contains(Seals::EXEC) && state.attr.perm.intersects(Permissions::EXECUTE) {
            // What is executed must not change either.
            seals |= Seals::SHRINK | Seals::GROW | Seals::WRITE | Seals::FUTURE_WRITE;
        }
        let all = state.seals | seals;
        self.set_seals(&mut state, all);
        Ok(())
    }

    pub(crate) fn set_seals(&self, state: &mut State, seals: Seals) {
        state.seals = seals;
        self.write_sealed.store(seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE), Ordering::SeqCst);
    }
}
