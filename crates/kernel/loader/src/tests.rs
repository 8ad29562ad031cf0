//! Programs made by hand, sound and unsound.

use std::collections::BTreeMap;

use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE};
use guestmem::{UserAddr, UserMem};
use mm::MemoryManager;
use proptest::prelude::{any, proptest};

use crate::fake::{FakeFiles, Ph, elf, exec};
use crate::{LoadError, Loaded};

const EXEC: u16 = 2;
const DYN: u16 = 3;

fn load_ph(flags: u32, offset: u64, vaddr: u64, file_size: u64, mem_size: u64) -> Ph {
    Ph { kind: 1, flags, offset, vaddr, file_size, mem_size, align: PAGE_SIZE }
}

/// Text, data with bss, at these addresses.
fn two_segments(base: u64) -> Vec<Ph> {
    vec![
        load_ph(5, 0, base, 0x1000, 0x1000),
        load_ph(6, 0x1100, base + 0x2100, 0x200, 0x3000),
        Ph { kind: 0x6474_e551, flags: 6, ..Ph::default() },
    ]
}

fn static_program() -> Vec<u8> {
    elf(EXEC, 0x40_0040, &two_segments(0x40_0000), 0x2000)
}

/// A program with `interp` as its interpreter.
fn dynamic_program(interp: &[u8]) -> Vec<u8> {
    let mut headers = two_segments(0);
    let at = 0x800u64;
    headers.push(Ph { kind: 3, offset: at, file_size: interp.len() as u64, ..Ph::default() });
    let mut bytes = elf(DYN, 0x40, &headers, 0x2000);
    bytes[at as usize..at as usize + interp.len()].copy_from_slice(interp);
    bytes
}

fn run(bytes: &[u8]) -> Result<Loaded, LoadError> {
    exec(&FakeFiles::default().with("/p", bytes), "/p", &["p"], &[])
}

fn error(bytes: &[u8]) -> Option<Errno> {
    run(bytes).err().map(Errno::from)
}

fn bytes_at(mm: &MemoryManager, addr: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    mm.read(UserAddr(addr), &mut buf).unwrap();
    buf
}

fn word(mm: &MemoryManager, addr: u64) -> u64 {
    u64::from_le_bytes(bytes_at(mm, addr, 8).try_into().unwrap())
}

fn string(mm: &MemoryManager, addr: u64) -> String {
    let bytes: Vec<u8> = (addr..).map(|at| bytes_at(mm, at, 1)[0]).take_while(|b| *b != 0).collect();
    String::from_utf8(bytes).unwrap()
}

/// What `_start` reads from its stack.
fn read_stack(loaded: &Loaded) -> (Vec<String>, Vec<String>, BTreeMap<u64, u64>) {
    let mm = &loaded.mm;
    let mut at = loaded.sp;
    let mut next = || {
        at += 8;
        word(mm, at - 8)
    };
    let argc = next();
    let args = (0..argc).map(|_| string(mm, next())).collect();
    assert_eq!(next(), 0);
    let mut env = Vec::new();
    loop {
        match next() {
            0 => break,
            pointer => env.push(string(mm, pointer)),
        }
    }
    let mut aux = BTreeMap::new();
    loop {
        match (next(), next()) {
            (0, 0) => break,
            (key, value) => aux.insert(key, value),
        };
    }
    (args, env, aux)
}

#[test]
fn a_static_program_is_mapped_where_it_says() {
    let loaded = run(&static_program()).unwrap();
    assert_eq!(loaded.ip, 0x40_0040);
    let mm = &loaded.mm;
    assert_eq!(mm.find(UserAddr(0x40_0000)).unwrap().prot, Prot::READ | Prot::EXEC);
    assert_eq!(bytes_at(mm, 0x40_2100, 0x200), [0xaa; 0x200]);
    assert_eq!(
        bytes_at(mm, 0x40_2300, 0x2e00),
        vec![0; 0x2e00],
        "bss is zero, in the file's page and behind"
    );
    assert!(mm.find(UserAddr(0x40_1000)).is_none(), "the gap is no mapping");
    let heap = mm.layout().brk_start;
    assert!((0x40_6000..0x40_6000 + (32 << 20)).contains(&heap));
    assert_eq!(mm.brk(UserAddr(heap + 1)).0, heap + 1);
    let stack = mm.find(UserAddr(loaded.sp)).unwrap();
    assert_eq!(stack.prot, Prot::READ | Prot::WRITE);
    assert!(String::from_utf8(mm.maps_text()).unwrap().contains("[stack]"));
}

#[test]
fn the_stack_holds_arguments_environment_and_vector() {
    let files = FakeFiles::default().with("/bin/p", &static_program());
    let loaded = exec(&files, "/bin/p", &["p", "", "two words"], &["A=1", "B="]).unwrap();
    assert_eq!(loaded.sp % 16, 0);
    let (args, env, aux) = read_stack(&loaded);
    assert_eq!(args, ["p", "", "two words"]);
    assert_eq!(env, ["A=1", "B="]);
    assert_eq!(aux[&3], 0x40_0040, "AT_PHDR");
    assert_eq!((aux[&4], aux[&5], aux[&6], aux[&7], aux[&9]), (56, 3, 4096, 0, 0x40_0040));
    assert_eq!((aux[&11], aux[&12], aux[&13], aux[&14], aux[&23]), (1, 2, 3, 4, 1));
    assert_eq!((aux[&16], aux[&26], aux[&51], aux[&17]), (5, 6, 7, 100));
    assert_eq!(string(&loaded.mm, aux[&31]), "/bin/p");
    assert_eq!(string(&loaded.mm, aux[&15]), "x86_64");
    let random: Vec<u8> = (0..16u8).map(|index| index.wrapping_mul(37)).collect();
    assert_eq!(bytes_at(&loaded.mm, aux[&25], 16), random);
    assert!(loaded.mm.find(UserAddr(aux[&33])).is_some(), "the vDSO");
    let line = bytes_at(&loaded.mm, loaded.args.start, (loaded.args.end - loaded.args.start) as usize);
    assert_eq!(line, b"p\0\0two words\0");
    let env = bytes_at(&loaded.mm, loaded.env.start, (loaded.env.end - loaded.env.start) as usize);
    assert_eq!(env, b"A=1\0B=\0");
    assert_eq!(loaded.auxv.len() % 16, 0);
    assert_eq!(loaded.command, b"p");
}

#[test]
fn a_dynamic_program_starts_in_its_interpreter() {
    let library = elf(DYN, 0x123, &two_segments(0), 0x2000);
    let files = FakeFiles::default().with("/p", &dynamic_program(b"/ld.so\0")).with("/ld.so", &library);
    let loaded = exec(&files, "/p", &["p"], &[]).unwrap();
    let (_, _, aux) = read_stack(&loaded);
    assert_eq!(loaded.ip, aux[&7] + 0x123);
    assert_eq!(aux[&9], loaded.image.start + 0x40);
    assert_eq!(aux[&3], loaded.image.start + 0x40);
    assert_ne!(aux[&7], loaded.image.start);
    assert!(loaded.mm.layout().brk_start >= loaded.image.end);
}

#[test]
fn alignment_of_segments_is_honoured() {
    let mut headers = two_segments(0x7000);
    headers[0].align = 1 << 21;
    let loaded = run(&elf(DYN, 0x7000, &headers, 0x2000)).unwrap();
    assert_eq!((loaded.ip - 0x7000) % (1 << 21), 0);
}

#[test]
fn interpreters_that_are_missing_or_none() {
    let with = |interp: &[u8], library: &[u8]| {
        let files = FakeFiles::default().with("/p", &dynamic_program(interp)).with("/ld.so", library);
        exec(&files, "/p", &["p"], &[]).err().map(Errno::from)
    };
    assert_eq!(with(b"/none\0", b""), Some(Errno::ENOENT));
    assert_eq!(with(b"/ld.so\0", b"text"), Some(Errno::ELIBBAD));
    assert_eq!(with(b"/ld.so", b""), Some(Errno::ENOEXEC), "no NUL");
    assert_eq!(with(b"\0", b""), Some(Errno::ENOEXEC));
}

#[test]
fn files_that_are_no_programs() {
    assert_eq!(error(b""), Some(Errno::ENOEXEC));
    assert_eq!(error(b"echo hello\n"), Some(Errno::ENOEXEC));
    let good = static_program();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        error(&bytes)
    };
    assert_eq!(with(4, 1), Some(Errno::ENOEXEC), "32 bits");
    assert_eq!(with(5, 2), Some(Errno::ENOEXEC), "big endian");
    assert_eq!(with(16, 1), Some(Errno::ENOEXEC), "an object file");
    assert_eq!(with(18, 3), Some(Errno::ENOEXEC), "another machine");
    assert_eq!(with(54, 32), Some(Errno::ENOEXEC), "size of program headers");
    assert_eq!(with(56, 0), Some(Errno::ENOEXEC), "no program headers");
    assert_eq!(error(&good[..100]), Some(Errno::ENOEXEC), "cut off");
}

#[test]
fn headers_that_make_no_sense() {
    let one = |ph: Ph| error(&elf(EXEC, 0, &[ph], 0x2000));
    assert_eq!(one(load_ph(5, 0, 0x40_0000, 0x2000, 0x1000)), Some(Errno::EINVAL), "file > memory");
    assert_eq!(one(load_ph(5, 1, 0x40_0000, 0x100, 0x1000)), Some(Errno::EINVAL), "not congruent");
    assert_eq!(one(load_ph(5, 0, u64::MAX - 0xfff, 0x100, 0x1000)), Some(Errno::EINVAL));
    assert_eq!(one(load_ph(5, 0, 0x40_0000, 0, u64::MAX)), Some(Errno::EINVAL));
    assert_eq!(one(load_ph(5, 0, 0x1000, 0x100, 0x1000)), Some(Errno::EPERM), "below the lowest address");
    assert_eq!(one(load_ph(5, 0, 0x40_0000, 0, 0)), Some(Errno::EINVAL), "empty");
    assert_eq!(error(&elf(EXEC, 0, &[Ph { kind: 4, ..Ph::default() }], 0x2000)), Some(Errno::EINVAL));
}

#[test]
fn scripts_run_their_interpreters() {
    let files = FakeFiles::default()
        .with("/sh", &static_program())
        .with("/a", b"#! /sh  -e x \nrest")
        .with("/b", b"#!/a\n")
        .with("/loop", b"#!/loop\n")
        .with("/orphan", b"#!/gone\n")
        .with("/empty", b"#!\n");
    let args = |path: &str, argv: &[&str]| {
        let loaded = exec(&files, path, argv, &[])?;
        assert_eq!(loaded.exe.path(), b"/sh");
        assert_eq!(loaded.command, &path.as_bytes()[1..]);
        Ok::<_, LoadError>(read_stack(&loaded).0)
    };
    assert_eq!(args("/a", &["a", "1"]).unwrap(), ["/sh", "-e x", "/a", "1"]);
    assert_eq!(args("/b", &["b", "1"]).unwrap(), ["/sh", "-e x", "/a", "/b", "1"]);
    assert_eq!(args("/sh", &[]).unwrap(), [""], "there is always an argv[0]");
    assert_eq!(args("/loop", &["x"]), Err(LoadError::TooDeep));
    assert_eq!(args("/orphan", &["x"]), Err(LoadError::System(Errno::ENOENT)));
    assert_eq!(args("/empty", &["x"]), Err(LoadError::NotExecutable));
}

proptest! {
    /// Whatever the bytes: a program or an error.
    #[test]
    fn mutations_never_panic(
        dynamic in any::<bool>(),
        changes in proptest::collection::vec((0..400usize, any::<u8>()), 1..6),
        extreme in proptest::option::of((0..24usize, 0..4usize)),
    ) {
        let mut bytes = if dynamic { dynamic_program(b"/ld.so\0") } else { static_program() };
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        // A whole field with a number that overflows easily.
        if let Some((field, value)) = extreme {
            let value = [u64::MAX, u64::MAX - 0xfff, 1 << 47, 1 << 63][value];
            bytes[64 + field * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        let library = elf(DYN, 0x123, &two_segments(0), 0x2000);
        let files = FakeFiles::default().with("/p", &bytes).with("/ld.so", &library);
        if let Ok(loaded) = exec(&files, "/p", &["p"], &["E=1"]) {
            assert_eq!(read_stack(&loaded).0, ["p"]);
        }
    }

    /// The same with both files mutated and any interpreter line.
    #[test]
    fn scripts_and_libraries_never_panic(
        line in proptest::collection::vec(any::<u8>(), 0..300),
        changes in proptest::collection::vec((0..400usize, any::<u8>()), 0..6),
    ) {
        let mut library = elf(DYN, 0x123, &two_segments(0), 0x2000);
        for (at, byte) in changes {
            library[at] = byte;
        }
        let script = [b"#!".as_slice(), &line].concat();
        let files = FakeFiles::default()
            .with("/p", &dynamic_program(b"/ld.so\0"))
            .with("/ld.so", &library)
            .with("/s", &script);
        let _ = exec(&files, "/p", &["p"], &[]);
        let _ = exec(&files, "/s", &["s"], &[]);
    }
}
