//! What a process and the system have used (`getrusage(2)`, `times(2)`, `sysinfo(2)`).

use std::time::Duration;

use abi::process::Rusage;
use abi::time::Timeval;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cx::Cx;

/// Clock ticks a second (`sysconf(_SC_CLK_TCK)`).
const TICKS: u128 = 100;

const RUSAGE_SELF: i32 = 0;
const RUSAGE_CHILDREN: i32 = -1;
const RUSAGE_THREAD: i32 = 1;

/// `getrusage(2)`: times and peak memory; the rest is zero.
pub(crate) fn getrusage(cx: &mut Cx<'_>, who: i32, out: UserPtr<Rusage>) -> SysResult<()> {
    let usage = match who {
        RUSAGE_SELF => cx.task.process_usage(),
        RUSAGE_CHILDREN => cx.task.children_usage(),
        RUSAGE_THREAD => Rusage { maxrss: cx.task.process_usage().maxrss, ..cx.task.thread_usage() },
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(cx.task.mm().store(out, &usage)?)
}

/// `times(2)`: since the sandbox started, in ticks.
pub(crate) fn times(cx: &mut Cx<'_>, out: UserPtr<[i64; 4]>) -> SysResult<i64> {
    if let Some(out) = out.non_null() {
        let (own, children) = (cx.task.process_usage(), cx.task.children_usage());
        let times = [own.utime, own.stime, children.utime, children.stime];
        let ticks = times.map(|time| time.to_duration().map_or(0, ticks));
        cx.task.mm().store(out, &ticks)?;
    }
    Ok(ticks(cx.task.kernel().started().elapsed()))
}

fn ticks(time: Duration) -> i64 {
    i64::try_from(time.as_millis() * TICKS / 1000).unwrap_or(i64::MAX)
}

/// `struct sysinfo`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Default)]
#[repr(C)]
pub(crate) struct SysInfo {
    uptime: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    tasks: u16,
    pad: [u16; 3],
    total_high: u64,
    free_high: u64,
    unit: u32,
    end: u32,
}

/// `sysinfo(2)`: no load is measured, no swap exists, and of the memory half is said to be free, as
/// `/proc/meminfo` says.
pub(crate) fn sysinfo(cx: &mut Cx<'_>, out: UserPtr<SysInfo>) -> SysResult<()> {
    let kernel = cx.task.kernel();
    let memory = cx.services.machine.memory;
    let info = SysInfo {
        uptime: Timeval::from(kernel.started().elapsed()).sec,
        total_ram: memory,
        free_ram: memory / 2,
        tasks: u16::try_from(kernel.live_tasks()).unwrap_or(u16::MAX),
        unit: 1,
        ..SysInfo::default()
    };
    Ok(cx.task.mm().store(out, &info)?)
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;

    use super::SysInfo;
    use crate::testkit::{DATA, Guest};

    #[test]
    fn usage_is_told_of_the_three_that_exist() {
        let mut guest = Guest::new();
        for who in [0, 1, u64::MAX] {
            assert_eq!(guest.call(nr::getrusage, [who, DATA]), Ok(0));
        }
        assert_eq!(guest.call(nr::getrusage, [5, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::getrusage, [0, 0]), Err(Errno::EFAULT));
        assert!(guest.call(nr::times, [0]).is_ok());
        assert!(guest.call(nr::times, [DATA]).is_ok());
    }

    #[test]
    fn sysinfo_has_the_kernels_layout() {
        assert_eq!(size_of::<SysInfo>(), 112);
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::sysinfo, [DATA]), Ok(0));
        assert_eq!(guest.bytes(DATA + 32, 8), (1u64 << 30).to_le_bytes());
        assert_eq!(guest.bytes(DATA + 80, 2), [1, 0]);
        assert_eq!(guest.bytes(DATA + 104, 4), [1, 0, 0, 0]);
    }
}
