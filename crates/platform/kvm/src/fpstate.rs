//! Floating-point state: the XSAVE area as KVM and signal frames know it.

use kvm_bindings::kvm_xsave;
use platform::xstate::LEAST;

/// Where the host says in the area which features there are.
const XCR0: usize = 464;
const MXCSR: usize = 24;
const HEADER: usize = 512;

/// The features that the host keeps in an area.
pub(crate) fn features(area: &kvm_xsave) -> u64 {
    word(&bytes(area, LEAST), XCR0)
}

/// The first `size` bytes of an area.
pub(crate) fn bytes(area: &kvm_xsave, size: usize) -> Vec<u8> {
    area.region.iter().flat_map(|word| word.to_le_bytes()).take(size).collect()
}

/// The area that holds `state`.
pub(crate) fn area(state: &[u8]) -> kvm_xsave {
    let mut area = kvm_xsave::default();
    for (to, from) in area.region.iter_mut().zip(state.chunks_exact(4)) {
        *to = from.try_into().map_or(0, u32::from_le_bytes);
    }
    area
}

/// `state` without what the host would refuse. `None` when it is of the wrong size.
pub(crate) fn sanitised(state: &[u8], size: usize, xcr0: u64) -> Option<Vec<u8>> {
    if state.len() != size || size < LEAST {
        return None;
    }
    let mut area = state.to_vec();
    let features = word(state, HEADER) & xcr0;
    put(&mut area, HEADER, &features.to_le_bytes());
    put(&mut area, HEADER + 8, &[0; 56]);
    put(&mut area, MXCSR, &(word(state, MXCSR) as u32 & 0xffff).to_le_bytes());
    Some(area)
}

/// What a new program sees: no feature is in use; control words as the processor starts with them.
pub(crate) fn reset(size: usize) -> Vec<u8> {
    let mut area = vec![0; size];
    put(&mut area, 0, &0x37fu16.to_le_bytes());
    put(&mut area, MXCSR, &0x1f80u32.to_le_bytes());
    area
}

/// The x87 status word and `MXCSR`.
pub(crate) fn status(state: &[u8]) -> (u16, u32) {
    (word(state, 2) as u16, word(state, MXCSR) as u32)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{area, bytes, reset, sanitised, status, word};

    #[test]
    fn states_survive_the_way_there_and_back() {
        let mut state = reset(832);
        state[600] = 9;
        assert_eq!(bytes(&area(&state), 832), state);
        assert_eq!(status(&state), (0, 0x1f80));
    }

    #[test]
    fn foreign_states_are_made_harmless() {
        let state = sanitised(&[0xff; 832], 832, 7).expect("it has the size");
        assert_eq!((word(&state, 512), word(&state, 520)), (7, 0));
        assert_eq!(sanitised(&[0xff; 831], 832, 7), None);
    }
}
