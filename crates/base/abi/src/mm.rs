//! Memory mappings: protections and flags (`mmap(2)`, `mremap(2)`, `madvise(2)`).

use bitflags::bitflags;

bitflags! {
    /// Protections of a mapping (`PROT_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
    }
}

bitflags! {
    /// Flags of `mmap(2)` (`MAP_*`) but for the type, whose two low bits are read apart.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        /// Shared mapping.
        const SHARED = 0x01;
        /// Private mapping; with `SHARED`: `MAP_SHARED_VALIDATE`.
        const PRIVATE = 0x02;
        /// At exactly this address, replacing what is there.
        const FIXED = 0x10;
        /// Without a file.
        const ANONYMOUS = 0x20;
        /// Below 2 GiB.
        const BIT_32 = 0x40;
        /// Grows downwards.
        const GROWSDOWN = 0x100;
        /// Ignored.
        const DENYWRITE = 0x800;
        /// Ignored.
        const EXECUTABLE = 0x1000;
        /// Locked in memory.
        const LOCKED = 0x2000;
        /// No swap reserved.
        const NORESERVE = 0x4000;
        /// Populate now.
        const POPULATE = 0x8000;
        /// Do not block while populating.
        const NONBLOCK = 0x10000;
        /// A stack; no effect.
        const STACK = 0x20000;
        /// Huge pages.
        const HUGETLB = 0x40000;
        /// Synchronous page faults (DAX only).
        const SYNC = 0x80000;
        /// At exactly this address, or `EEXIST`.
        const FIXED_NOREPLACE = 0x100000;
    }
}
