//! The copy itself.
//!
//! # Soundness
//! The local side is the caller's buffer with its length; the remote side is checked by the kernel.

/// Copies between `len` bytes at `local` and `remote` of process `pid`, page by page; bytes moved.
pub(super) fn copy(pid: i32, write: bool, remote: u64, local: *mut u8, len: usize) -> usize {
    let mut done = 0;
    while done < len {
        let mut iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 256];
        let (mut used, mut total) = (0usize, 0usize);
        for entry in &mut iov {
            if done + total >= len {
                break;
            }
            let Some(at) = remote.checked_add((done + total) as u64) else { break };
            let room = (4096 - (at % 4096)) as usize;
            let n = room.min(len - done - total);
            *entry = libc::iovec { iov_base: std::ptr::without_provenance_mut(at as usize), iov_len: n };
            used += 1;
            total += n;
        }
        if used == 0 {
            break;
        }
        let here = libc::iovec { iov_base: local.wrapping_add(done).cast(), iov_len: total };
        let call = if write { libc::SYS_process_vm_writev } else { libc::SYS_process_vm_readv };
        // SAFETY: the caller's buffer has `len` bytes and `done + total <= len`; the remote side is checked
        // by the kernel.
        let r = unsafe { libc::syscall(call, pid, &raw const here, 1usize, iov.as_ptr(), used, 0usize) };
        if r <= 0 {
            break;
        }
        done += r as usize;
        if (r as usize) < total {
            break;
        }
    }
    done
}
