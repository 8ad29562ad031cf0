//! The files a loader reads, as it sees them.

use std::sync::Arc;

use abi::Errno;
use memmap::Mappable;

/// A file opened for execution: execute permission and mount have been checked.
pub trait ExecFile: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno>;

    /// How it is mapped; `ENODEV` when it cannot be.
    fn mappable(&self) -> Result<Arc<dyn Mappable>, Errno>;

    /// Its path as `/proc/PID/exe` shows it.
    fn path(&self) -> Vec<u8>;
}

/// Opens interpreters by path, as the calling task would.
pub trait Opener {
    /// Opens `path` for execution: `ENOENT`, `EACCES`, ...
    fn open(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno>;
}

/// Fills as much of `buf` as the file has.
pub(crate) fn read_full(file: &dyn ExecFile, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        match file.read_at(at, rest)? {
            0 => break,
            n => done += n.min(rest.len()),
        }
    }
    Ok(done)
}
