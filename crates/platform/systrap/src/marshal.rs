//! What travels with a posted call: the one table of what the stub copies for it.
//!
//! Before it posts a call, the stub copies what one argument points to (*taken*) into the slot, and makes sure that
//! what another points to (*given*) can be written; behind the call, it copies what the Sentry has left there to its
//! place. Where any of that faults, the call is made through the host, like one that is not posted, and the
//! Sentry finds out itself what Linux would answer. What is longer than the slot's room does not travel.

use libc::{
    SYS_access, SYS_chdir, SYS_chmod, SYS_connect, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_wait,
    SYS_faccessat, SYS_faccessat2, SYS_fchmodat, SYS_fgetxattr, SYS_flistxattr, SYS_fstat, SYS_fstatfs,
    SYS_getcwd, SYS_getdents64, SYS_getrandom, SYS_getrlimit, SYS_getrusage, SYS_getxattr, SYS_lgetxattr,
    SYS_listxattr, SYS_llistxattr, SYS_lstat, SYS_mkdir, SYS_mkdirat, SYS_newfstatat, SYS_open, SYS_openat,
    SYS_pipe, SYS_pipe2, SYS_poll, SYS_ppoll, SYS_pread64, SYS_prlimit64, SYS_pwrite64, SYS_read,
    SYS_readlink, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_rmdir, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_stat, SYS_statfs, SYS_statx, SYS_uname,
    SYS_unlink, SYS_unlinkat, SYS_utimensat, SYS_write, SYS_writev,
};

use crate::filter::ACTING;

/// Numbers the table has room for: all that may be posted.
pub(crate) const CALLS: usize = 512;

/// In a length: so many for each that the next argument counts.
pub(crate) const TIMES: u16 = 0x8000;
/// Up to a NUL. The first of [`LENGTHS`], which says how far the stub looks.
pub(crate) const TEXT: u16 = 4096;
/// As many bytes as the next argument says.
const BYTES: u16 = TIMES | 1;

/// The lengths there are. The stub looks them up here too.
pub(crate) const LENGTHS: [u16; 16] =
    [TEXT, BYTES, TIMES | 8, TIMES | 12, TIMES | 16, 8, 12, 16, 32, 56, 120, 144, 256, 390, 0, 0];

/// An argument that points to something, from 1 on, and how long that is.
pub(crate) type Pointer = (u16, u16);

/// None.
const NO: Pointer = (0, TEXT);

/// Number, what is taken, what is given.
pub(crate) const ROWS: &[(i64, Pointer, Pointer)] = &[
    (SYS_read, NO, (2, BYTES)),
    (SYS_write, (2, BYTES), NO),
    (SYS_pread64, NO, (2, BYTES)),
    (SYS_pwrite64, (2, BYTES), NO),
    (SYS_readv, (2, TIMES | 16), NO),
    (SYS_writev, (2, TIMES | 16), NO),
    (SYS_sendto, (2, BYTES), NO),
    (SYS_recvfrom, NO, (2, BYTES)),
    (SYS_sendmsg, (2, 56), NO),
    (SYS_recvmsg, (2, 56), (2, 56)),
    (SYS_connect, (2, BYTES), NO),
    (SYS_setsockopt, (4, BYTES), NO),
    (SYS_open, (1, TEXT), NO),
    (SYS_openat, (2, TEXT), NO),
    (SYS_stat, (1, TEXT), (2, 144)),
    (SYS_lstat, (1, TEXT), (2, 144)),
    (SYS_fstat, NO, (2, 144)),
    (SYS_newfstatat, (2, TEXT), (3, 144)),
    (SYS_statx, (2, TEXT), (5, 256)),
    (SYS_fstatfs, NO, (2, 120)),
    (SYS_access, (1, TEXT), NO),
    (SYS_faccessat, (2, TEXT), NO),
    (SYS_faccessat2, (2, TEXT), NO),
    (SYS_readlink, (1, TEXT), (2, BYTES)),
    (SYS_readlinkat, (2, TEXT), (3, BYTES)),
    (SYS_getdents64, NO, (2, BYTES)),
    (SYS_getxattr, (1, TEXT), (3, BYTES)),
    (SYS_lgetxattr, (1, TEXT), (3, BYTES)),
    (SYS_fgetxattr, (2, TEXT), (3, BYTES)),
    (SYS_listxattr, (1, TEXT), (2, BYTES)),
    (SYS_llistxattr, (1, TEXT), (2, BYTES)),
    (SYS_flistxattr, NO, (2, BYTES)),
    (SYS_statfs, (1, TEXT), (2, 120)),
    (SYS_getcwd, NO, (1, BYTES)),
    (SYS_chdir, (1, TEXT), NO),
    (SYS_mkdir, (1, TEXT), NO),
    (SYS_mkdirat, (2, TEXT), NO),
    (SYS_rmdir, (1, TEXT), NO),
    (SYS_unlink, (1, TEXT), NO),
    (SYS_unlinkat, (2, TEXT), NO),
    (SYS_chmod, (1, TEXT), NO),
    (SYS_fchmodat, (2, TEXT), NO),
    (SYS_utimensat, (2, TEXT), NO),
    (SYS_pipe, NO, (1, 8)),
    (SYS_pipe2, NO, (1, 8)),
    (SYS_poll, (1, TIMES | 8), (1, TIMES | 8)),
    (SYS_ppoll, (1, TIMES | 8), (1, TIMES | 8)),
    (SYS_epoll_wait, NO, (2, TIMES | 12)),
    (SYS_epoll_pwait, NO, (2, TIMES | 12)),
    (SYS_epoll_ctl, (4, 12), NO),
    (SYS_rt_sigaction, (2, 32), (3, 32)),
    (SYS_rt_sigprocmask, (2, 8), (3, 8)),
    (SYS_getrlimit, NO, (2, 16)),
    (SYS_prlimit64, (3, 16), (4, 16)),
    (SYS_getrusage, NO, (2, 144)),
    (SYS_uname, NO, (1, 390)),
    (SYS_getrandom, NO, (1, BYTES)),
];

/// What travels, by number: three bits of an argument and four of a length, first of what is taken.
pub(crate) const TABLE: [u16; CALLS] = table();

/// The calls that are posted even when nobody looks for them, a bit each: what travels need not be fetched from the
/// guest's memory, and whoever changes mappings can do so where it waits.
pub(crate) const RUNG: [u64; 8] = rung();

const fn rung() -> [u64; 8] {
    let mut map = [0; 8];
    let mut nr = 0;
    while nr < CALLS {
        if TABLE[nr] != 0 {
            map[nr / 64] |= 1 << (nr % 64);
        }
        nr += 1;
    }
    let mut i = 0;
    while i < ACTING.len() {
        let nr = ACTING[i] as usize;
        map[nr / 64] |= 1 << (nr % 64);
        i += 1;
    }
    map
}

const fn table() -> [u16; CALLS] {
    let mut table = [0; CALLS];
    let mut i = 0;
    while i < ROWS.len() {
        let (nr, taken, given) = ROWS[i];
        table[nr as usize] = encode(taken) | encode(given) << 7;
        i += 1;
    }
    table
}

const fn encode(pointer: Pointer) -> u16 {
    let (argument, length) = pointer;
    let mut code = 0;
    while LENGTHS[code] != length {
        code += 1;
    }
    argument | (code as u16) << 3
}

#[cfg(test)]
mod tests {
    use super::{BYTES, CALLS, LENGTHS, ROWS, TABLE, TEXT};
    use crate::filter::is_postable;

    #[test]
    fn rows_are_for_calls_that_may_be_posted_and_fit_the_table() {
        for (nr, taken, given) in ROWS {
            assert!((*nr as usize) < CALLS && is_postable(*nr as u64), "{nr}");
            for (argument, length) in [taken, given] {
                let counted = length & 0x8000 != 0;
                assert!(*argument < 7 - u16::from(counted), "{nr}: the count is an argument too");
            }
            assert_ne!((given.0 != 0, given.1), (true, TEXT), "{nr}: nobody gives a text");
        }
        assert_eq!(LENGTHS[0], TEXT);
        assert_eq!(TABLE[0], (2 | 1 << 3) << 7);
        assert_eq!(LENGTHS[1], BYTES);
    }
}
