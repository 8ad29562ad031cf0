//! Bytes of another process, found by the id of any of its threads (`process_vm_readv(2)`).

use guestmem::{Fault, UserAddr};

mod raw;

/// [`read`] of all of `buf` as a guest's memory is read.
///
/// # Errors
/// How much could be read, when that is not all.
pub fn load(pid: i32, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
    all(read(pid, addr.0, buf), buf.len())
}

/// [`write`] of all of `buf` as a guest's memory is written.
///
/// # Errors
/// How much could be written, when that is not all.
pub fn store(pid: i32, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
    all(write(pid, addr.0, buf), buf.len())
}

fn all(copied: usize, wanted: usize) -> Result<(), Fault> {
    if copied == wanted { Ok(()) } else { Err(Fault { copied }) }
}

/// Reads bytes at `remote` of process `pid`, up to the first page that cannot be read; how many.
pub fn read(pid: i32, remote: u64, buf: &mut [u8]) -> usize {
    raw::copy(pid, false, remote, buf.as_mut_ptr(), buf.len())
}

/// Writes bytes at `remote` of process `pid`, up to the first page that cannot be written; how many.
pub fn write(pid: i32, remote: u64, buf: &[u8]) -> usize {
    raw::copy(pid, true, remote, buf.as_ptr().cast_mut(), buf.len())
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn copies_our_own_bytes() {
        let (from, mut to) = ([7u8; 5000], [0u8; 5000]);
        let pid = std::process::id() as i32;
        assert_eq!(read(pid, from.as_ptr().addr() as u64, &mut to), 5000);
        assert_eq!(to, from);
        assert_eq!(write(pid, 0x1000, &from), 0, "nothing is mapped there");
    }
}
