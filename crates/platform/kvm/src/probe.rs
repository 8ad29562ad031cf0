//! A guest of a few bytes that shows how system calls leave this machine, and that faults arrive.

use std::io;
use std::time::{Duration, Instant};

use platform::{PlatformError, Registers};

use crate::NAME;
use crate::arena::Notes;
use crate::layout::PAGE;
use crate::machine::{Entrance, Machine};
use crate::raw;
use crate::tables::{Entry, Rights, Tables};
use crate::vcpu::{Exit, Vcpu};

/// Where it lies.
const CODE: u64 = 0x40_0000;
/// `syscall; mov eax, [0x1000]`.
const PROBE: &[u8] = b"\x0f\x05\x8b\x04\x25\0\x10\0\0";

/// Runs the guest and sets the machine's entrance.
pub(crate) fn decide(machine: &mut Machine, cpu: &mut Vcpu) -> Result<(), PlatformError> {
    let doing = |source| PlatformError::Host { doing: "probing the virtual machine", source };
    let mut seen = String::new();
    for entrance in [Entrance::Fault, Entrance::Halt] {
        machine.set_entrance(entrance).map_err(doing)?;
        cpu.set_entrance(entrance);
        match try_out(machine, cpu).map_err(doing)? {
            Ok(()) => {
                machine.copies_an_exit = copies_an_exit(machine, cpu).map_err(doing)?;
                return Ok(());
            }
            Err(exit) => seen.push_str(&format!("; where {}: {exit}", entrance.describe())),
        }
    }
    let reason = format!("a probe's guest does not do what guests do{seen}");
    Err(PlatformError::Unsupported { platform: NAME, reason })
}

/// Exits that are timed.
const TIMED: u32 = 8;
/// What it takes to copy a page, more or less.
const COPY: Duration = Duration::from_micros(1);
/// Most pages that are copied because one is written to.
const MOST_COPIES: u64 = 16;

/// How many pages can be copied in the time of an exit, as a power of two.
fn copies_an_exit(machine: &Machine, cpu: &mut Vcpu) -> io::Result<u64> {
    let time = guest(machine, PROBE, |root| {
        let begun = Instant::now();
        for _ in 0..TIMED {
            let mut registers = Registers::entry(CODE, CODE + PAGE);
            let _ = cpu.run(&mut registers, root);
        }
        begun.elapsed() / TIMED
    })?;
    tracing::debug!(?time, "an exit");
    let pages = (time.as_nanos() / COPY.as_nanos()) as u64;
    Ok(1 << pages.clamp(1, MOST_COPIES).ilog2())
}

/// `rdtsc; shl rdx, 32; or rax, rdx; syscall`.
const CLOCK: &[u8] = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\x0f\x05";

/// Whether a guest's time-stamp counter is ours.
pub(crate) fn has_our_clock(machine: &Machine, cpu: &mut Vcpu) -> io::Result<bool> {
    guest(machine, CLOCK, |root| {
        let mut registers = Registers::entry(CODE, CODE + PAGE);
        let before = raw::cpu::clock();
        let called = matches!(cpu.run(&mut registers, root), Exit::Call);
        called && (before..=raw::cpu::clock()).contains(&registers.rax)
    })
}

/// Whether a call and a fault arrive; what did when they do not.
fn try_out(machine: &Machine, cpu: &mut Vcpu) -> io::Result<Result<(), String>> {
    guest(machine, PROBE, |root| {
        let mut registers = Registers { rax: 39, ..Registers::entry(CODE, CODE + PAGE) };
        match cpu.run(&mut registers, root) {
            Exit::Call if registers.rip == CODE + 2 && registers.rax == 39 => {
                registers.sanitise();
                match cpu.run(&mut registers, root) {
                    Exit::Exception { vector: 14, cr2: 0x1000, .. } if registers.rip == CODE + 2 => Ok(()),
                    other => Err(format!("no fault but {other:?} at {:#x}", registers.rip)),
                }
            }
            other => Err(format!("no call but {other:?} at {:#x}", registers.rip)),
        }
    })
}

/// Calls `run` with the root of tables of an address space that has `code` at [`CODE`], and nothing else.
fn guest<T>(machine: &Machine, code: &[u8], run: impl FnOnce(u64) -> T) -> io::Result<T> {
    let arena = &machine.arena;
    let tables = Tables::new(arena, &machine.system)?;
    let frame = arena.take_one()?;
    arena.write(frame, 0, code).ok_or(io::ErrorKind::OutOfMemory)?;
    tables.set(CODE, Entry::frame(frame, Rights { read: true, write: false, exec: true }))?;
    let result = run(tables.root());
    let mut notes = Notes { dropped: vec![frame], ..Notes::default() };
    tables.drop_all(&mut notes, &mut |_, _| {});
    arena.settle(notes);
    Ok(result)
}
