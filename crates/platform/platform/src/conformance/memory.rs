//! Mappings and copies.

use abi::mm::Prot;
use guestmem::UserAddr;

use super::kit::{DATA, anonymous, run, space_with, word};
use crate::{HostExit, MapOp, Platform, Resume};

pub(super) fn mappings_change(platform: &dyn Platform) {
    const FAR: u64 = 0x7000_0000_0000;
    // syscall
    let exit = run(platform, b"\x0f\x05", |guest, _| {
        let space = guest.address_space();
        let rw = Prot::READ | Prot::WRITE;
        space.apply(&[anonymous(FAR, 8192, rw)]).expect("mapped");
        space.write(UserAddr(FAR), &[7; 4]).expect("written");
        let moved = MapOp::Remap {
            from: UserAddr(FAR),
            from_len: 8192,
            to: UserAddr(FAR + 0x10_0000),
            to_len: 16384,
            keep: false,
        };
        space.apply(&[moved]).expect("moved");
        assert_eq!(word(&*space, FAR + 0x10_0000), 0x0707_0707);
        assert!(space.read(UserAddr(FAR), &mut [0; 4]).is_err());
        let read_only = MapOp::Protect { addr: UserAddr(FAR + 0x10_0000), len: 4096, prot: Prot::READ };
        space.apply(&[read_only]).expect("protected");
        assert!(space.write(UserAddr(FAR + 0x10_0000), &[1]).is_err());
        let bad = MapOp::Protect { addr: UserAddr(FAR), len: 4096, prot: Prot::READ };
        let unmap = MapOp::Unmap { addr: UserAddr(FAR + 0x10_0000), len: 16384 };
        let error = space.apply(&[unmap, bad]).expect_err("a hole cannot be protected");
        assert_eq!((error.index, error.errno), (1, abi::Errno::ENOMEM));
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn copies_stop_at_holes(platform: &dyn Platform) {
    let space = space_with(platform, b"\x0f\x05");
    let mut buf = vec![1; 8192];
    let fault = space.read(UserAddr(DATA + 4096 + 100), &mut buf).expect_err("a hole");
    assert_eq!(fault.copied, 4096 - 100);
    let fault = space.write(UserAddr(DATA + 4096 + 100), &buf).expect_err("a hole");
    assert_eq!(fault.copied, 4096 - 100);
    assert!(space.read(UserAddr(u64::MAX - 10), &mut buf).is_err());
}

pub(super) fn words_are_exchanged(platform: &dyn Platform) {
    let space = space_with(platform, b"\x0f\x05");
    assert_eq!(space.compare_exchange_u32(UserAddr(DATA), 0, 5), Ok(0));
    assert_eq!(space.compare_exchange_u32(UserAddr(DATA), 0, 6), Ok(5));
    assert_eq!(word(&*space, DATA), 5);
    assert!(space.compare_exchange_u32(UserAddr(0x1000), 0, 6).is_err());
}

pub(super) fn files_are_mapped(platform: &dyn Platform) {
    let file = std::fs::File::open("/proc/self/exe").expect("our own program");
    let object = memmap::HostObject::new(file.into(), Prot::READ);
    // syscall
    let exit = run(platform, b"\x0f\x05", move |guest, _| {
        let space = guest.address_space();
        let map = MapOp::Map {
            addr: UserAddr(DATA + 0x10_0000),
            len: 4096,
            prot: Prot::READ | Prot::WRITE,
            backing: memmap::Backing::Host { object: object.clone(), offset: 0 },
            shared: false,
            no_reserve: false,
            populate: true,
        };
        space.apply(&[map]).expect("mapped");
        assert_eq!(word(&*space, DATA + 0x10_0000).to_le_bytes(), *b"\x7fELF");
        space.write(UserAddr(DATA + 0x10_0000), b"mine").expect("a private copy is writable");
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}
