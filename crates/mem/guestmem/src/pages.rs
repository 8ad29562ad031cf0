//! Reading many small things that lie near each other.

use abi::{Errno, PAGE_SIZE};

use crate::{Fault, UserAddr, UserCStr, UserMem};

/// Keeps what it has read last, always to the end of a page: the next string or word often is there already, and each
/// copy costs a call to the host. For what is read once; it does not see what the guest changes meanwhile.
#[derive(Debug)]
pub struct PageReader<'m, M: ?Sized> {
    mem: &'m M,
    at: u64,
    bytes: Vec<u8>,
}

impl<'m, M: UserMem + ?Sized> PageReader<'m, M> {
    /// One that has read nothing.
    pub fn new(mem: &'m M) -> Self {
        Self { mem, at: 0, bytes: Vec::new() }
    }

    /// The bytes from `addr` to the end of its page: what lies behind may not be there, and need not be.
    fn rest_of_page(&mut self, addr: UserAddr) -> Result<&[u8], Fault> {
        let skip = addr.0.wrapping_sub(self.at);
        if skip < self.bytes.len() as u64 {
            return Ok(self.bytes.get(skip as usize..).unwrap_or_default());
        }
        self.at = addr.0;
        self.bytes.resize((PAGE_SIZE - addr.0 % PAGE_SIZE) as usize, 0);
        let read = self.mem.read(addr, &mut self.bytes);
        if read.is_err() {
            self.bytes.clear();
        }
        read.map(|()| self.bytes.as_slice())
    }

    /// The word at `addr`.
    ///
    /// # Errors
    /// Not all of it can be read.
    pub fn load_u64(&mut self, addr: UserAddr) -> Result<u64, Fault> {
        if let Some(word) = self.rest_of_page(addr)?.first_chunk() {
            return Ok(u64::from_le_bytes(*word));
        }
        let mut word = [0; 8];
        self.mem.read(addr, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// A string, without its NUL.
    ///
    /// # Errors
    /// `EFAULT`, and `ENAMETOOLONG` when no NUL comes within `max` bytes.
    pub fn load_cstr(&mut self, string: UserCStr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut addr = string.0;
        while out.len() < max {
            let piece = self.rest_of_page(addr)?;
            let piece = piece.get(..max - out.len()).unwrap_or(piece);
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                out.extend(piece.iter().take(end));
                return Ok(out);
            }
            out.extend_from_slice(piece);
            addr = addr.checked_add(piece.len() as u64).ok_or(Errno::EFAULT)?;
        }
        Err(Errno::ENAMETOOLONG)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Two pages at 0x1000, of which the reads are counted.
    struct Pages(Vec<u8>, AtomicUsize);

    impl UserMem for Pages {
        fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let from = addr.0.checked_sub(0x1000).ok_or(Fault { copied: 0 })? as usize;
            let bytes = self.0.get(from..from + buf.len()).ok_or(Fault { copied: 0 })?;
            buf.copy_from_slice(bytes);
            Ok(())
        }

        fn write(&self, _: UserAddr, _: &[u8]) -> Result<(), Fault> {
            Err(Fault { copied: 0 })
        }

        fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Fault> {
            Err(Fault { copied: 0 })
        }
    }

    fn pages() -> Pages {
        let mut bytes = vec![b'x'; 0x2000];
        bytes[0x100..0x108].copy_from_slice(b"one\0two\0");
        bytes[0xffc..0x1004].copy_from_slice(&7u64.to_le_bytes());
        Pages(bytes, AtomicUsize::new(0))
    }

    #[test]
    fn neighbours_are_read_once() {
        let pages = pages();
        let mut reader = PageReader::new(&pages);
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x1100)), 10), Ok(b"one".to_vec()));
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x1104)), 10), Ok(b"two".to_vec()));
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x1104)), 2), Err(Errno::ENAMETOOLONG));
        assert_eq!(pages.1.load(Ordering::Relaxed), 1);
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x10f0)), 100), Ok([&[b'x'; 16][..], b"one"].concat()));
    }

    #[test]
    fn a_page_that_is_not_there_is_a_fault_only_for_what_needs_it() {
        let pages = pages();
        let mut reader = PageReader::new(&pages);
        assert_eq!(reader.load_u64(UserAddr(0x1ffc)), Ok(7), "over the edge of a page");
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x2000)), 10), Ok(Vec::new()));
        assert_eq!(reader.load_u64(UserAddr(0x2ffc)), Err(Fault { copied: 0 }));
        assert_eq!(reader.load_cstr(UserCStr(UserAddr(0x2ff0)), 100), Err(Errno::EFAULT));
        assert_eq!(reader.load_u64(UserAddr(u64::MAX)), Err(Fault { copied: 0 }));
        assert_eq!(reader.load_u64(UserAddr(0x1ff0)).map(|word| word as u8), Ok(b'x'));
    }
}
