//! Where the host's vDSO is, and where guests find theirs.

use guestmem::UserAddr;

use crate::ops::Call;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Where processes keep the vDSO until a kernel wants it mapped; the first that is free in the Sentry.
pub const PLACES: [u64; 2] = [0x7ffe_1000_0000, 0x7ffe_2000_0000];

/// Most bytes the vDSO and its data pages may take.
const ROOM: u64 = 16 * PAGE;

/// The Sentry's vDSO: its mappings, and where the zygote keeps them for guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdso {
    /// First byte and bytes of each mapping, adjacent, in order; the code is the last.
    parts: Vec<(u64, u64)>,
    keep: u64,
}

impl Vdso {
    /// Finds it in a `/proc/self/maps`. `None` when it has none or one that we do not understand.
    pub fn find(maps: &str) -> Option<Self> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for line in maps.lines() {
            let name = line.rsplit_once(' ').map_or("", |(_, name)| name);
            if !matches!(name, "[vvar]" | "[vvar_vclock]" | "[vdso]") {
                continue;
            }
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
            if parts.last().is_some_and(|(at, len)| at + len != start) {
                return None;
            }
            parts.push((start, end.checked_sub(start)?));
            if name == "[vdso]" {
                break;
            }
        }
        let at = parts.first()?.0;
        let free = |place: &u64| at + ROOM <= *place || place + ROOM <= at;
        let vdso = Self { parts, keep: PLACES.into_iter().find(free)? };
        (vdso.kept().1 <= ROOM).then_some(vdso)
    }

    /// Where it was, and its length.
    pub fn original(&self) -> (u64, u64) {
        let at = self.parts.first().map_or(0, |part| part.0);
        (at, self.parts.iter().map(|part| part.1).sum())
    }

    /// Where the zygote keeps it, and its length.
    pub fn kept(&self) -> (u64, u64) {
        (self.keep, self.original().1)
    }

    /// Address of the kept ELF header.
    pub fn header(&self) -> u64 {
        self.keep + self.parts.last().map_or(0, |part| part.0) - self.original().0
    }

    /// How it comes where it is kept: from, to and length of each mapping.
    pub fn moves(&self) -> Vec<(u64, u64, u64)> {
        let at = self.original().0;
        self.parts.iter().map(|(from, len)| (*from, from - at + self.keep, *len)).collect()
    }

    /// The calls that move it from there to `to`.
    pub fn calls_to(&self, to: UserAddr) -> Vec<Call> {
        // MREMAP_MAYMOVE, MREMAP_FIXED.
        let call = |from, to, len| [libc::SYS_mremap as u64, from, len, len, 3, to, 0];
        let at = self.original().0;
        self.parts.iter().map(|(from, len)| call(from - at + self.keep, from - at + to.0, *len)).collect()
    }

    /// Once it is at `to`: its ELF header, and its length.
    pub fn placed(&self, to: UserAddr) -> (UserAddr, u64) {
        let (kept, len) = self.kept();
        (UserAddr(to.0 + (self.header() - kept)), len)
    }
}

#[cfg(test)]
mod tests {
    use super::{PLACES, Vdso};
    use guestmem::UserAddr;

    #[test]
    fn is_found_in_maps() {
        let maps = "7ff2000-7ff6000 rw-p 00000000 00:00 0 \n\
            7fdeab6a5000-7fdeab6a9000 r--p 00000000 00:00 0                          [vvar]\n\
            7fdeab6a9000-7fdeab6ab000 r--p 00000000 00:00 0                          [vvar_vclock]\n\
            7fdeab6ab000-7fdeab6ad000 r-xp 00000000 00:00 0                          [vdso]\n\
            7fff01a3a000-7fff01a5b000 rw-p 00000000 00:00 0                          [stack]\n";
        let vdso = Vdso::find(maps).expect("it is there");
        let keep = PLACES[0];
        assert_eq!(vdso.original(), (0x7fde_ab6a_5000, 0x8000));
        assert_eq!((vdso.kept(), vdso.header()), ((keep, 0x8000), keep + 0x6000));
        assert_eq!(vdso.moves()[2], (0x7fde_ab6a_b000, keep + 0x6000, 0x2000));
        let call = [libc::SYS_mremap as u64, keep + 0x4000, 0x2000, 0x2000, 3, 0x5000, 0];
        assert_eq!(vdso.calls_to(UserAddr(0x1000))[1], call);
        assert_eq!(vdso.placed(UserAddr(0x1000)), (UserAddr(0x7000), 0x8000));
        assert_eq!(Vdso::find("7fff01a3a000-7fff01a5b000 rw-p 00000000 00:00 0 [stack]"), None);
        let near = maps.replace("7fdeab6a", &format!("{:x}", keep >> 16));
        assert_eq!(Vdso::find(&near).map(|vdso| vdso.keep), Some(PLACES[1]));
    }
}
