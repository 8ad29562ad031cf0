//! What a call costs on this platform: answers 100,000 with 7.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use abi::mm::Prot;
use guestmem::UserAddr;
use memmap::Backing;
use platform::{
    GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, ThreadHandle, Trap, TrapHandler,
};
use platform_ptrace::Ptrace;

const CODE: u64 = 0x40_0000;
const CALLS: u32 = 100_000;

struct Kernel(Sender<HostExit>);

impl TrapHandler for Kernel {
    fn started(&self, _handle: Arc<dyn ThreadHandle>) {}

    fn trap(&self, _thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        match trap {
            Trap::Syscall(call) if call.nr == 110 => Resume::Return(7),
            _ => Resume::ExitProcess,
        }
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.0.send(exit);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // mov ebx,100000; again: mov eax,110; syscall; dec ebx; jnz again; mov eax,231; syscall
    let code = b"\xbb\xa0\x86\x01\0\xb8\x6e\0\0\0\x0f\x05\xff\xcb\x75\xf5\xb8\xe7\0\0\0\x0f\x05";
    let platform = Ptrace::new()?;
    let began = Instant::now();
    let space = platform.new_address_space()?;
    println!("an address space: {:?}", began.elapsed());
    space.apply(&[MapOp::Map {
        addr: UserAddr(CODE),
        len: 4096,
        prot: Prot::READ | Prot::WRITE | Prot::EXEC,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve: false,
        populate: false,
    }])?;
    space.write(UserAddr(CODE), code).map_err(abi::Errno::from)?;
    let (ended, end) = channel();
    let handler = Arc::new(Kernel(ended));
    let began = Instant::now();
    let registers = Registers::entry(CODE, CODE + 4096);
    platform.spawn(&space, NewThread { registers, fp_state: None, handler, clear_tid: 0 })?;
    let exit = end.recv()?;
    println!("{:?}; a call: {:?}", exit, began.elapsed() / CALLS);
    Ok(())
}
