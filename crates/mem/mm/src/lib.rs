//! The memory manager: VMA tree, brk, mremap, limits and the /proc views of them.
#![forbid(unsafe_code)]
