//! What belongs to the processor: thread bases (`arch_prctl(2)`), and the calls that ask where one runs.

use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserPtr};

use crate::cx::Cx;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const ARCH_GET_CPUID: i32 = 0x1011;
const ARCH_SET_CPUID: i32 = 0x1012;

/// `arch_prctl(2)`. The bases are `thread`'s registers; `EPERM` for one outside user memory, as Linux.
/// No faulting `cpuid`, no shadow stacks, no extended-feature permissions (`EINVAL`, `ENODEV`).
pub(crate) fn arch_prctl(cx: &mut Cx<'_>, code: i32, addr: u64) -> SysResult<u64> {
    match code {
        ARCH_SET_FS | ARCH_SET_GS => set_base(cx, code, addr),
        ARCH_GET_FS | ARCH_GET_GS => {
            let registers = cx.thread.registers().map_err(Errno::from)?;
            let base = if code == ARCH_GET_FS { registers.fs_base } else { registers.gs_base };
            cx.task.mm().store(UserPtr::new(UserAddr(addr)), &base)?;
            Ok(0)
        }
        // `cpuid` is enabled, and cannot be made to fault.
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno::ENODEV.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// First address that is not a user's (`TASK_SIZE_MAX`).
pub(crate) const USER_END: u64 = (1 << 47) - abi::PAGE_SIZE;

fn set_base(cx: &mut Cx<'_>, code: i32, addr: u64) -> SysResult<u64> {
    if addr >= USER_END {
        return Err(Errno::EPERM.into());
    }
    let mut registers = cx.thread.registers().map_err(Errno::from)?;
    match code {
        ARCH_SET_FS => registers.fs_base = addr,
        _ => registers.gs_base = addr,
    }
    // All registers are set, so this call's result is among them.
    registers.rax = 0;
    registers.orig_rax = u64::MAX;
    cx.thread.set_registers(&registers).map_err(Errno::from)?;
    cx.task.registers_replaced();
    Ok(0)
}

/// `getcpu(2)`: which processor a guest thread runs on is the host's business, and the vDSO knows it; who
/// asks here is told the first.
pub(crate) fn getcpu(cx: &mut Cx<'_>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> SysResult<()> {
    let mem = cx.task.mm();
    for out in [cpu, node].into_iter().filter_map(UserPtr::non_null) {
        mem.store(out, &0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;
    use platform::Resume;

    use super::{ARCH_GET_FS, ARCH_SET_FS, ARCH_SET_GS};
    use crate::testkit::{DATA, Guest};

    #[test]
    fn a_base_that_is_set_is_a_register_and_can_be_read() {
        let mut guest = Guest::new();
        guest.thread.registers.rax = 5;
        let set = [ARCH_SET_FS as u64, 0x7000, 0, 0, 0, 0];
        assert_eq!(guest.thread.call(nr::arch_prctl.into(), set), Resume::Continue);
        assert_eq!((guest.thread.registers.fs_base, guest.thread.registers.rax), (0x7000, 0));
        assert_eq!(guest.call(nr::arch_prctl, [ARCH_GET_FS as u64, DATA]), Ok(0));
        assert_eq!(guest.bytes(DATA, 8), 0x7000u64.to_le_bytes());
    }

    #[test]
    fn bases_stay_in_user_memory() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::arch_prctl, [ARCH_SET_GS as u64, 1 << 47]), Err(Errno::EPERM));
        assert_eq!(guest.call(nr::arch_prctl, [0x2000, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::getcpu, [DATA, 0]), Ok(0));
        assert_eq!(guest.call(nr::getcpu, [0, 8]), Err(Errno::EFAULT));
    }
}
