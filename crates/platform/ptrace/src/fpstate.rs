//! Floating-point state: the XSAVE area as `ptrace(2)` and signal frames know it.

use platform::xstate;

use crate::raw::sys;
use crate::tracee::Gone;

/// More than any processor's area.
const ROOM: usize = 1 << 16;
/// Where the host says in the area which features there are.
const XCR0: usize = 464;
const MXCSR: usize = 24;
const HEADER: usize = 512;

/// What areas of this host's threads are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Bytes of what guests have of an area, and frames show.
    pub(crate) size: usize,
    /// The features in it.
    pub(crate) xcr0: u64,
    /// Bytes that the host takes: also those of features that a process must ask for.
    whole: usize,
}

impl Facts {
    /// As the host tells them of a stopped thread.
    pub(crate) fn of(tid: i32) -> Option<Self> {
        let area = sys::xstate(tid, ROOM).ok()?;
        let xcr0 = xstate::granted(word(&area, XCR0));
        let size = xstate::size(xcr0);
        (area.len() >= size).then_some(Self { size, xcr0, whole: area.len() })
    }

    /// The state of a stopped thread.
    pub(crate) fn get(&self, tid: i32) -> Result<Vec<u8>, Gone> {
        let area = sys::xstate(tid, self.size)?;
        if area.len() == self.size { Ok(area) } else { Err(Gone) }
    }

    /// Replaces it, forcing what the host would refuse. Of the wrong size it is the reset state.
    pub(crate) fn set(&self, tid: i32, state: &[u8]) -> Result<(), Gone> {
        if state.len() != self.size {
            return self.reset(tid);
        }
        let mut area = state.to_vec();
        area.resize(self.whole, 0);
        let features = word(state, HEADER) & self.xcr0;
        put(&mut area, HEADER, &features.to_le_bytes());
        put(&mut area, HEADER + 8, &[0; 56]);
        put(&mut area, MXCSR, &(word(state, MXCSR) as u32 & 0xffff).to_le_bytes());
        if sys::set_xstate(tid, &area).is_ok() { Ok(()) } else { self.reset(tid) }
    }

    /// What a new program sees.
    pub(crate) fn reset(&self, tid: i32) -> Result<(), Gone> {
        Ok(sys::set_xstate(tid, &reset_state(self.whole))?)
    }
}

/// No feature is in use; control words as the processor starts with them.
fn reset_state(size: usize) -> Vec<u8> {
    let mut area = vec![0; size];
    put(&mut area, 0, &0x37fu16.to_le_bytes());
    put(&mut area, MXCSR, &0x1f80u32.to_le_bytes());
    area
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}
