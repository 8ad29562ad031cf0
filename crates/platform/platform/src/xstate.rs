//! The XSAVE area in its standard form, as signal frames have it: which features it keeps, and how long it is.
//!
//! SDM volume 1, 13.2 to 13.5 and 13.14; CPUID leaf 13.

use std::arch::x86_64::__cpuid_count;

/// Legacy area and header: what every area has.
pub const LEAST: usize = 576;

/// Bytes of an area with `features`, a mask as in `XCR0`.
#[must_use]
pub fn size(features: u64) -> usize {
    let end = |bit: u32| {
        let part = __cpuid_count(0xd, bit);
        part.eax as usize + part.ebx as usize
    };
    parts(features).map(end).fold(LEAST, usize::max)
}

/// `features` without those that a process has only after it has asked for them (`arch_prctl(2)`,
/// `ARCH_REQ_XCOMP_PERM`): AMX' tiles. The host's frames leave them out, and no guest is let ask.
#[must_use]
pub fn granted(features: u64) -> u64 {
    // ECX[2]: the processor can be told to fault at their first use, which is how they are kept from a process.
    let asked_for = |bit: &u32| __cpuid_count(0xd, *bit).ecx & 1 << 2 != 0;
    parts(features).filter(asked_for).fold(features, |left, bit| left & !(1 << bit))
}

/// The features behind the header.
fn parts(features: u64) -> impl Iterator<Item = u32> {
    (2..63).filter(move |bit| features >> bit & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::{LEAST, granted, size};

    #[test]
    fn an_area_is_as_long_as_its_last_part() {
        assert_eq!((size(0), size(3)), (LEAST, LEAST));
        // AVX stands behind the header, and has 256 bytes.
        assert_eq!(size(7), 832);
        assert!(size(0xe7) >= 832);
    }

    #[test]
    fn what_needs_no_asking_stays() {
        assert_eq!(granted(7), 7);
        assert_eq!(granted(0xe7), 0xe7);
        assert_eq!(granted(1 << 18 | 7) & 7, 7);
    }
}
