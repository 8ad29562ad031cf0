//! Floating-point state: the XSAVE area as `ptrace(2)` and signal frames know it.

use crate::raw::sys;
use crate::tracee::Gone;

/// More than any processor's area.
const ROOM: usize = 1 << 16;
/// Legacy area and header.
const LEAST: usize = 576;
/// Where the host says in the area which features there are.
const XCR0: usize = 464;
const MXCSR: usize = 24;
const HEADER: usize = 512;

/// Size of the area and features of the processor, as the host tells them of a stopped thread.
pub(crate) fn facts(tid: i32) -> Option<(usize, u64)> {
    let area = sys::xstate(tid, ROOM).ok()?;
    (area.len() >= LEAST).then(|| (area.len(), word(&area, XCR0)))
}

/// The state of a stopped thread.
pub(crate) fn get(tid: i32, size: usize) -> Result<Vec<u8>, Gone> {
    let area = sys::xstate(tid, size)?;
    if area.len() == size { Ok(area) } else { Err(Gone) }
}

/// Replaces it, forcing what the host would refuse. Of the wrong size it is the reset state.
pub(crate) fn set(tid: i32, state: &[u8], size: usize, xcr0: u64) -> Result<(), Gone> {
    if state.len() != size || size < LEAST {
        return reset(tid, size);
    }
    let mut area = state.to_vec();
    let features = word(state, HEADER) & xcr0;
    put(&mut area, HEADER, &features.to_le_bytes());
    put(&mut area, HEADER + 8, &[0; 56]);
    put(&mut area, MXCSR, &(word(state, MXCSR) as u32 & 0xffff).to_le_bytes());
    if sys::set_xstate(tid, &area).is_ok() { Ok(()) } else { reset(tid, size) }
}

/// What a new program sees.
pub(crate) fn reset(tid: i32, size: usize) -> Result<(), Gone> {
    Ok(sys::set_xstate(tid, &reset_state(size))?)
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
