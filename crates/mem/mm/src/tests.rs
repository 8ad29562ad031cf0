//! The system calls one at a time: placement, errors in the order of Linux, and the texts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::mm::{MapFlags, Prot};
use abi::{Errno, PAGE_SIZE};
use guestmem::{UserAddr, UserMem};

use crate::fake::{FakeFile, FakeSpace, LAYOUT, manager};
use crate::{MapArgs, MapFile, MemoryManager, MmLimits, STACK_GUARD_GAP, VmaFlags};

const RW: Prot = Prot::READ.union(Prot::WRITE);

fn fixed(addr: u64, len: u64) -> MapArgs {
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    MapArgs { addr, flags, ..MapArgs::anonymous(len, RW) }
}

#[test]
fn mappings_are_placed_downwards_and_a_free_hint_is_honoured() {
    let (mm, _) = manager();
    let a = mm.mmap(&MapArgs::anonymous(1, RW)).unwrap();
    assert_eq!(a.0, LAYOUT.mmap_top - PAGE_SIZE);
    let b = mm.mmap(&MapArgs::anonymous(2 * PAGE_SIZE, RW)).unwrap();
    assert_eq!(b.0, a.0 - 2 * PAGE_SIZE);
    assert_eq!(mm.vmas().len(), 1, "neighbours merge");
    let hint = MapArgs { addr: 0x5000_0001, ..MapArgs::anonymous(1, RW) };
    assert_eq!(mm.mmap(&hint), Ok(UserAddr(0x5000_1000)));
    assert_eq!(mm.mmap(&hint).unwrap().0, b.0 - PAGE_SIZE, "a taken hint is not");
}

#[test]
fn mmap_refuses_what_linux_refuses() {
    let (mm, _) = manager();
    let ok = MapArgs::anonymous(1, RW);
    let with = |f: &dyn Fn(&mut MapArgs)| {
        let mut args = ok.clone();
        f(&mut args);
        mm.mmap(&args)
    };
    assert_eq!(with(&|a| a.len = 0), Err(Errno::EINVAL));
    assert_eq!(with(&|a| a.len = u64::MAX), Err(Errno::ENOMEM));
    assert_eq!(with(&|a| a.len = 1 << 47), Err(Errno::ENOMEM));
    assert_eq!(with(&|a| a.offset = 1), Err(Errno::EINVAL));
    assert_eq!(with(&|a| a.flags = MapFlags::ANONYMOUS), Err(Errno::EINVAL));
    let fixed = MapFlags::FIXED | ok.flags;
    assert_eq!(with(&|a| (a.flags, a.addr) = (fixed, 0x20001)), Err(Errno::EINVAL));
    assert_eq!(with(&|a| (a.flags, a.addr) = (fixed, 0x1000)), Err(Errno::EPERM));
    assert_eq!(with(&|a| (a.flags, a.addr) = (fixed, 1 << 47)), Err(Errno::ENOMEM));
    let read_only = MapFile { file: Some(FakeFile::new()), access: Prot::READ };
    let shared = |file: &MapFile| MapArgs {
        flags: MapFlags::SHARED,
        file: Some(file.clone()),
        ..MapArgs::anonymous(1, RW)
    };
    assert_eq!(mm.mmap(&shared(&read_only)), Err(Errno::EACCES));
    assert_eq!(mm.mmap(&shared(&MapFile { file: None, access: RW })), Err(Errno::ENODEV));
    let at = mm.mmap(&MapArgs { prot: Prot::READ, ..shared(&read_only) }).unwrap();
    assert_eq!(mm.mprotect(at, 1, 2), Err(Errno::EACCES), "not beyond the open mode");
}

#[test]
fn noreplace_finds_what_is_there() {
    let (mm, _) = manager();
    mm.mmap(&fixed(0x20000, PAGE_SIZE)).unwrap();
    let mut args = fixed(0x1f000, 2 * PAGE_SIZE);
    args.flags = (args.flags - MapFlags::FIXED) | MapFlags::FIXED_NOREPLACE;
    assert_eq!(mm.mmap(&args), Err(Errno::EEXIST));
    args.len = PAGE_SIZE;
    assert_eq!(mm.mmap(&args), Ok(UserAddr(0x1f000)));
}

#[test]
fn the_heap_grows_shrinks_and_stops_at_its_limits() {
    let (mm, _) = manager();
    let start = LAYOUT.brk_start;
    assert_eq!(mm.brk(UserAddr(0)).0, start);
    assert_eq!(mm.brk(UserAddr(start + 5)).0, start + 5);
    assert_eq!(mm.brk(UserAddr(start + 3 * PAGE_SIZE)).0, start + 3 * PAGE_SIZE);
    assert_eq!(mm.vmas().len(), 1);
    assert_eq!(mm.brk(UserAddr(start + PAGE_SIZE)).0, start + PAGE_SIZE);
    assert_eq!(mm.sizes().total, PAGE_SIZE);
    mm.mmap(&fixed(start + 8 * PAGE_SIZE, PAGE_SIZE)).unwrap();
    let at = start + PAGE_SIZE;
    assert_eq!(mm.brk(UserAddr(start + 8 * PAGE_SIZE)).0, at, "a page stays free");
    mm.set_limits(MmLimits { data: 2 * PAGE_SIZE, ..MmLimits::UNLIMITED });
    assert_eq!(mm.brk(UserAddr(start + 3 * PAGE_SIZE)).0, at);
}

#[test]
fn mremap_grows_in_place_or_moves() {
    let (mm, _) = manager();
    let at = UserAddr(0x40_0000_0000);
    mm.mmap(&fixed(at.0, 2 * PAGE_SIZE)).unwrap();
    assert_eq!(mm.mremap(at, 2 * PAGE_SIZE, 4 * PAGE_SIZE, 0, UserAddr(0)), Ok(at));
    mm.mmap(&MapArgs { prot: Prot::READ, ..fixed(at.0 + 4 * PAGE_SIZE, PAGE_SIZE) }).unwrap();
    let (old, new) = (4 * PAGE_SIZE, 5 * PAGE_SIZE);
    assert_eq!(mm.mremap(at, old, new, 0, UserAddr(0)), Err(Errno::ENOMEM));
    let to = mm.mremap(at, old, new, 1, UserAddr(0)).unwrap();
    assert_eq!(to.0, LAYOUT.mmap_top - new);
    assert!(mm.find(at).is_none());
    assert_eq!(mm.mremap(at, old, new, 1, UserAddr(0)), Err(Errno::EFAULT));
    assert_eq!(mm.mremap(to, 0, new, 1, UserAddr(0)), Err(Errno::EINVAL), "private");
    assert_eq!(mm.mremap(to, old, old, 8, UserAddr(0)), Err(Errno::EINVAL));
    assert_eq!(mm.mremap(to, old, old, 2, UserAddr(0)), Err(Errno::EINVAL));
}

#[test]
fn zero_pages_grow_even_where_the_host_has_several_mappings() {
    let (mm, host) = manager();
    let at = mm.mmap(&fixed(0x40_0000_0000, 2 * PAGE_SIZE)).unwrap();
    *host.fail.lock() = Some(Errno::EFAULT);
    assert_eq!(mm.mremap(at, 2 * PAGE_SIZE, 4 * PAGE_SIZE, 0, UserAddr(0)), Ok(at));
    assert_eq!(mm.vmas().len(), 1);
    assert_eq!(host.pages.lock().len(), 4);
}

#[test]
fn a_shared_mapping_can_be_duplicated() {
    let (mm, _) = manager();
    let flags = MapFlags::SHARED | MapFlags::ANONYMOUS;
    let at = mm.mmap(&MapArgs { flags, ..MapArgs::anonymous(PAGE_SIZE, RW) }).unwrap();
    let copy = mm.mremap(at, 0, PAGE_SIZE, 1, UserAddr(0)).unwrap();
    assert_ne!(at, copy);
    assert!(mm.find(at).unwrap().is_shared() && mm.find(copy).unwrap().is_shared());
}

#[test]
fn a_stack_grows_to_the_fault_but_not_into_its_neighbour() {
    let (mm, _) = manager();
    let top = 0x7fff_f000_0000u64;
    mm.map_stack(UserAddr(top), 4 * PAGE_SIZE, RW).unwrap();
    let bottom = top - 4 * PAGE_SIZE;
    assert_eq!(mm.grow_stack(UserAddr(bottom)), Ok(false));
    assert_eq!(mm.grow_stack(UserAddr(bottom - 5 * PAGE_SIZE + 7)), Ok(true));
    assert_eq!(mm.find(UserAddr(top - 1)).unwrap().start, bottom - 5 * PAGE_SIZE);
    // A copy to what is not there yet grows it, too.
    assert_eq!(mm.write(UserAddr(bottom - 6 * PAGE_SIZE + 1), &[0; 4]), Ok(()));
    mm.mmap(&fixed(bottom - 300 * PAGE_SIZE, PAGE_SIZE)).unwrap();
    let low = bottom - 298 * PAGE_SIZE;
    assert_eq!(mm.grow_stack(UserAddr(low)), Err(Errno::ENOMEM), "guard gap");
    mm.set_limits(MmLimits { stack: 12 * PAGE_SIZE, ..MmLimits::UNLIMITED });
    assert_eq!(mm.grow_stack(UserAddr(bottom - 20 * PAGE_SIZE)), Err(Errno::ENOMEM));
    assert_eq!(mm.grow_stack(UserAddr(0x20000)), Err(Errno::EFAULT));
}

#[test]
fn nothing_is_placed_into_the_gap_below_a_stack() {
    let (mm, _) = manager();
    mm.map_stack(UserAddr(LAYOUT.mmap_top + PAGE_SIZE), PAGE_SIZE, RW).unwrap();
    let at = mm.mmap(&MapArgs::anonymous(PAGE_SIZE, RW)).unwrap();
    assert_eq!(at.0, LAYOUT.mmap_top - STACK_GUARD_GAP - PAGE_SIZE);
}

#[test]
fn fork_leaves_out_dontfork_and_announces_the_rest() {
    let (mm, _) = manager();
    let file = FakeFile::new();
    let open = MapFile { file: Some(file.clone()), access: Prot::all() };
    let args = MapArgs { flags: MapFlags::PRIVATE, file: Some(open), ..MapArgs::anonymous(PAGE_SIZE, RW) };
    let at = mm.mmap(&args).unwrap();
    let gone = mm.mmap(&MapArgs::anonymous(PAGE_SIZE, RW)).unwrap();
    mm.madvise(gone, PAGE_SIZE, 10).unwrap();
    mm.mlock(at, PAGE_SIZE, 0).unwrap();
    let child = mm.fork(|_| Ok::<_, Errno>(Arc::new(FakeSpace::default()) as _)).unwrap();
    assert_eq!(child.vmas().len(), 1);
    assert!(!child.find(at).unwrap().flags.contains(VmaFlags::LOCKED));
    assert_eq!(file.mapped_pages.load(Ordering::SeqCst), 2);
    drop(child);
    assert_eq!(file.mapped_pages.load(Ordering::SeqCst), 1);
    let mut lost = None;
    let failed = mm.fork(|child| {
        lost = Some(Arc::clone(child));
        Err(Errno::EAGAIN)
    });
    assert_eq!(failed.err(), Some(Errno::EAGAIN));
    let lost = lost.unwrap();
    assert_eq!(lost.munmap(at, PAGE_SIZE), Err(Errno::ESRCH), "does not wait for ever");
    drop(lost);
    assert_eq!(file.mapped_pages.load(Ordering::SeqCst), 1);
}

#[test]
fn a_child_may_be_used_before_its_host_side_is_there() {
    let (mm, _) = manager();
    let at = mm.mmap(&MapArgs::anonymous(PAGE_SIZE, RW)).unwrap();
    let mut user = None;
    let start = |child: &Arc<MemoryManager>| {
        let child = Arc::clone(child);
        user = Some(std::thread::spawn(move || child.munmap(at, PAGE_SIZE)));
        Ok::<_, Errno>(Arc::new(FakeSpace::default()) as _)
    };
    let child = mm.fork(start).unwrap();
    assert_eq!(user.unwrap().join().unwrap(), Ok(()));
    assert!(child.vmas().is_empty() && mm.vmas().len() == 1);
}

#[test]
fn a_host_that_refuses_leaves_the_tree_alone() {
    let (mm, host) = manager();
    *host.fail.lock() = Some(Errno::ENOMEM);
    assert_eq!(mm.mmap(&MapArgs::anonymous(1, RW)), Err(Errno::ENOMEM));
    assert!(mm.vmas().is_empty());
    let at = mm.mmap(&MapArgs::anonymous(1, RW)).unwrap();
    *host.fail.lock() = Some(Errno::ENOMEM);
    assert_eq!(mm.munmap(at, PAGE_SIZE), Err(Errno::ENOMEM));
    assert_eq!(mm.vmas().len(), 1);
}

#[test]
fn limits_of_space_and_locks_hold() {
    let (mm, _) = manager();
    mm.set_limits(MmLimits { address_space: 4 * PAGE_SIZE, locked: PAGE_SIZE, ..MmLimits::UNLIMITED });
    let at = mm.mmap(&MapArgs::anonymous(4 * PAGE_SIZE, RW)).unwrap();
    assert_eq!(mm.mmap(&MapArgs::anonymous(1, RW)), Err(Errno::ENOMEM));
    assert_eq!(mm.mmap(&fixed(at.0, PAGE_SIZE)), Ok(at), "replacing costs nothing");
    assert_eq!(mm.mlock(at, 2 * PAGE_SIZE, 0), Err(Errno::ENOMEM));
    assert_eq!(mm.mlock(at, 1, 0), Ok(()));
    assert_eq!(mm.mlock(at, 1, 0), Ok(()), "twice is once");
    assert_eq!(mm.madvise(at, PAGE_SIZE, 4), Err(Errno::EINVAL), "locked");
    assert_eq!(mm.munlock(at, PAGE_SIZE), Ok(()));
    assert_eq!(mm.madvise(at, PAGE_SIZE, 4), Ok(()));
    assert_eq!(mm.mlockall(0), Err(Errno::EINVAL));
    assert_eq!(mm.mlockall(1), Err(Errno::ENOMEM));
}

#[test]
fn maps_reads_as_on_linux() {
    let (mm, _) = manager();
    let open = MapFile { file: Some(FakeFile::new()), access: Prot::all() };
    mm.mmap(&MapArgs {
        offset: 0x2000,
        file: Some(open),
        flags: MapFlags::PRIVATE | MapFlags::FIXED,
        ..fixed(0x40_0000, PAGE_SIZE)
    })
    .unwrap();
    mm.brk(UserAddr(LAYOUT.brk_start + PAGE_SIZE));
    mm.mmap(&fixed(0x7f00_0000_0000, PAGE_SIZE)).unwrap();
    mm.set_stack_start(0x7fff_f000_0000 - 8);
    mm.map_stack(UserAddr(0x7fff_f000_0000), PAGE_SIZE, RW).unwrap();
    let expected = "\
00400000-00401000 rw-p 00002000 08:01 77                                 /lib/libc.so
00600000-00601000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
7fffeffff000-7ffff0000000 rw-p 00000000 00:00 0                          [stack]
";
    assert_eq!(String::from_utf8(mm.maps_text()).unwrap(), expected);
    let smaps = String::from_utf8(mm.smaps_text()).unwrap();
    assert!(smaps.contains("Size:                  4 kB\n"));
    assert!(smaps.contains("VmFlags: rd wr mr mw me gd\n"));
    assert_eq!(mm.statm_text(), b"4 0 0 0 0 4 0\n");
}

#[test]
fn msync_and_mincore_see_holes() {
    let (mm, _) = manager();
    let at = mm.mmap(&MapArgs::anonymous(PAGE_SIZE, RW)).unwrap();
    assert_eq!(mm.msync(at, PAGE_SIZE, 4), Ok(()));
    assert_eq!(mm.msync(at, 2 * PAGE_SIZE, 4), Err(Errno::ENOMEM));
    assert_eq!(mm.msync(at, PAGE_SIZE, 5), Err(Errno::EINVAL));
    let mut seen = Vec::new();
    let mut take = |bytes: &[u8]| {
        seen.extend_from_slice(bytes);
        Ok(())
    };
    assert_eq!(mm.mincore(at, 1, &mut take), Ok(()));
    assert_eq!(mm.mincore(at, 2 * PAGE_SIZE, &mut take), Err(Errno::ENOMEM));
    assert_eq!(seen, [1]);
}

#[test]
fn the_vdso_has_its_names() {
    let (mm, _) = manager();
    let header = mm.map_vdso().unwrap();
    let text = String::from_utf8(mm.maps_text()).unwrap();
    assert!(text.contains("[vvar]") && text.contains("[vdso]"));
    assert_eq!(mm.find(header).unwrap().start, header.0);
    assert_eq!(mm.mremap(header, PAGE_SIZE, 9 * PAGE_SIZE, 1, UserAddr(0)), Err(Errno::EFAULT));
}
