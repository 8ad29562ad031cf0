//! Copies between the Sentry and a guest.

use abi::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::{UserAddr, UserCStr, UserPtr};

/// A guest address could not be read or written. Becomes `EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes copied before the fault.
    pub copied: usize,
}

impl From<Fault> for Errno {
    fn from(_: Fault) -> Self {
        Self::EFAULT
    }
}

impl From<Fault> for abi::SysError {
    fn from(_: Fault) -> Self {
        Self::Errno(Errno::EFAULT)
    }
}

/// One guest address space, as bytes that can be copied. Every access can fail; none panics.
pub trait UserMem: Send + Sync {
    /// Copies guest bytes at `addr` into `buf`. A fault says how many bytes arrived before it.
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault>;

    /// Copies as many guest bytes at `addr` as are at hand, all that `buf` has room for or fewer, but at least one;
    /// how many. For what ends somewhere, like a string. A fault is one as of [`read`](Self::read).
    fn read_some(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize, Fault> {
        self.read(addr, buf)?;
        Ok(buf.len())
    }

    /// Copies `buf` to the guest at `addr`, honouring the guest's page protections.
    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault>;

    /// Atomically replaces the aligned word at `addr` when it is `old`; returns what was there.
    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault>;
}

/// Typed copies on top of [`UserMem`].
pub trait MemExt: UserMem {
    /// Copies one `T` in.
    fn load<T: FromBytes + IntoBytes>(&self, ptr: UserPtr<T>) -> Result<T, Fault> {
        let mut value = T::new_zeroed();
        self.read(ptr.addr(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies one `T` out.
    fn store<T: IntoBytes + zerocopy::Immutable>(&self, ptr: UserPtr<T>, value: &T) -> Result<(), Fault> {
        self.write(ptr.addr(), value.as_bytes())
    }

    /// Copies `count` elements in. The caller has bounded `count`.
    fn load_array<T: FromBytes + IntoBytes>(&self, ptr: UserPtr<T>, count: usize) -> Result<Vec<T>, Fault> {
        let mut values = T::new_vec_zeroed(count).map_err(|_| Fault { copied: 0 })?;
        // In one copy: each costs a call to the host.
        self.read(ptr.addr(), values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Copies an array out.
    fn store_array<T: IntoBytes + zerocopy::Immutable>(
        &self,
        ptr: UserPtr<T>,
        values: &[T],
    ) -> Result<(), Fault> {
        self.write(ptr.addr(), values.as_bytes())
    }

    /// Copies a string in, without its NUL. `ENAMETOOLONG` when no NUL comes within `max` bytes.
    fn load_cstr(&self, string: UserCStr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut addr = string.0;
        while out.len() < max {
            // Up to the end of the page: the next one may not be there, and need not be.
            let in_page = (abi::PAGE_SIZE - addr.0 % abi::PAGE_SIZE) as usize;
            let mut chunk = [0u8; 256];
            let want = in_page.min(chunk.len()).min(max - out.len());
            let chunk = chunk.get_mut(..want).ok_or(Errno::EFAULT)?;
            let read = self.read_some(addr, chunk)?;
            let chunk = chunk.get(..read).filter(|chunk| !chunk.is_empty()).ok_or(Errno::EFAULT)?;
            if let Some(end) = chunk.iter().position(|b| *b == 0) {
                out.extend(chunk.iter().take(end));
                return Ok(out);
            }
            out.extend_from_slice(chunk);
            addr = addr.checked_add(read as u64).ok_or(Errno::EFAULT)?;
        }
        Err(Errno::ENAMETOOLONG)
    }
}

impl<M: UserMem + ?Sized> MemExt for M {}
