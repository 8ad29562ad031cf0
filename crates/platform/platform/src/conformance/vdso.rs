//! The host's vDSO in a guest.

use abi::time::Timespec;
use guestmem::UserAddr;
use zerocopy::FromBytes;

use super::kit::{CODE, DATA, run};
use crate::{HostExit, Platform, Registers, Resume, Trap};

const AT: u64 = 0x7100_0000_0000;
const SHT_DYNSYM: u32 = 11;

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: u64) -> u64 {
    let mut word = [0; 8];
    let from = bytes.get(at as usize..at as usize + N).expect("within the image");
    word.get_mut(..N).expect("at most eight bytes").copy_from_slice(from);
    u64::from_le_bytes(word)
}

/// Offset of the function `name` in the ELF image.
fn symbol(image: &[u8], name: &[u8]) -> u64 {
    let (sections, count) = (number::<8>(image, 40), number::<2>(image, 60));
    let header = |i: u64| sections + i * 64;
    let field = |i: u64, at: u64| number::<8>(image, header(i) + at);
    let symbols = (0..count).find(|i| number::<4>(image, header(*i) + 4) == u64::from(SHT_DYNSYM));
    let symbols = symbols.expect("dynamic symbols");
    let strings = field(number::<4>(image, header(symbols) + 40), 24);
    for i in 0..field(symbols, 32) / 24 {
        let at = field(symbols, 24) + i * 24;
        let text = image.get((strings + number::<4>(image, at)) as usize..).expect("within the image");
        if text.starts_with(name) && text.get(name.len()) == Some(&0) {
            return number::<8>(image, at + 8);
        }
    }
    panic!("the vDSO has no {}", String::from_utf8_lossy(name));
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("an uptime");
    text.split(' ').next().and_then(|t| t.parse().ok()).expect("a number")
}

pub(super) fn time_is_told_without_a_trap(platform: &dyn Platform) {
    if !platform.features().host_vdso {
        return;
    }
    // syscall; call rax; mov edi,eax; mov eax,231; syscall
    let code = b"\x0f\x05\xff\xd0\x89\xc7\xb8\xe7\0\0\0\x0f\x05";
    let mut step = 0;
    let exit = run(platform, code, move |guest, trap| {
        step += 1;
        let space = guest.address_space();
        let Trap::Syscall(call) = trap else { panic!("unexpected {trap:?}") };
        if step == 1 {
            let (header, used) = space.map_vdso(UserAddr(AT)).expect("mapped");
            let mut image = vec![0; (AT + used - header.0) as usize];
            space.read(header, &mut image).expect("readable");
            assert!(image.starts_with(b"\x7fELF"));
            let mut registers = Registers::entry(CODE + 2, DATA + 8192 - 16);
            registers.rax = header.0 + symbol(&image, b"__vdso_clock_gettime");
            (registers.rdi, registers.rsi) = (7, DATA); // CLOCK_BOOTTIME, which the uptime is
            guest.set_registers(&registers).expect("registers are set");
            return Resume::Continue;
        }
        assert_eq!((call.nr, call.args.first()), (231, Some(&0)), "the time made a call");
        let mut time = [0; 16];
        space.read(UserAddr(DATA), &mut time).expect("readable");
        let time = Timespec::read_from_bytes(&time).expect("a time");
        let told = time.sec as f64 + time.nsec as f64 / 1e9;
        assert!((told - uptime()).abs() < 60.0, "the guest's {told}, the host's {}", uptime());
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}
