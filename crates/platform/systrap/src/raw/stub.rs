//! The code that runs in guests: a signal handler, the doorbell, and the action list.
//!
//! # Soundness
//! Position-independent, and never run in the Sentry; it is only copied. Every `syscall` instruction in
//! it may be reached by a guest with any registers: what that allows is the filter's table.
//!
//! Register use: `rbx` the slot, `r14` the `ucontext`; the doorbell passes slot, signal, `siginfo`,
//! `ucontext`, FS base and GS base, which the Sentry reads from the (stable) notification.

use core::arch::global_asm;

use crate::layout;

global_asm!(
    ".pushsection .rodata.rampart_stub,\"a\"",
    ".balign 16",
    ".globl rampart_stub_begin, rampart_stub_entry, rampart_stub_end",
    "rampart_stub_begin:",
    // Signal handler, at the first byte: rdi signal, rsi siginfo, rdx ucontext.
    "mov rbx, rsp",
    "and rbx, -{slot}",
    "mov r14, rdx",
    "mov r10, rdx",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "2:", // ring, with rsi, rdx, r10 set
    "rdfsbase r8",
    "rdgsbase r9",
    "3:", // ring, r8 and r9 set too
    "mov rdi, rbx",
    "mov eax, {doorbell}",
    "syscall",
    "test rax, rax",
    "js 9f",
    "jz 8f",
    "mov r12, rax",
    "lea r13, [rbx + {actions}]",
    "4:", // one action
    "mov rax, [r13]",
    "mov rdi, [r13 + 8]",
    "mov rsi, [r13 + 16]",
    "mov rdx, [r13 + 24]",
    "mov r10, [r13 + 32]",
    "mov r8, [r13 + 40]",
    "mov r9, [r13 + 48]",
    "cmp rax, {act_clone}",
    "je 6f",
    "cmp rax, {act_cmpxchg}",
    "je 7f",
    "syscall",
    "5:", // store the result, next
    "mov [r13 + 56], rax",
    "cmp rax, -4095", // a failure ends the list
    "jae 55f",
    "add r13, 64",
    "dec r12",
    "jnz 4b",
    "55:",
    "xor esi, esi", // signal 0: back from actions, or a new thread
    "xor edx, edx",
    "mov r10, r14",
    "jmp 2b",
    "6:", // clone: r8 is the nonce, r9 the child's slot
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jnz 5b",
    "mov rbx, r9", // the child: registers only
    "mov edi, 1",  // PR_SET_PDEATHSIG, which a clone loses
    "mov esi, 9",
    "mov eax, 157",
    "syscall",
    "mov rsi, -1",
    "mov rdi, rbx",
    "mov eax, {doorbell}",
    "syscall",
    "test rax, rax",
    "js 9f",
    "jz 61f",
    "mov r15, rax", // the descriptor of its mailbox
    "mov r8, rax",
    "movabs rdi, {mailbox}",
    "mov esi, {mailbox_len}",
    "mov edx, 3",
    "mov r10d, 0x11",
    "xor r9d, r9d",
    "mov eax, 9",
    "syscall",
    "test rax, rax",
    "js 9f",
    "mov rdi, r15",
    "mov eax, 3",
    "syscall",
    "movabs rdi, {mailbox}",
    "mov esi, {mailbox_len}",
    "mov edx, 10", // MADV_DONTFORK
    "mov eax, 28",
    "syscall",
    "61:",
    "xor esi, esi",
    "xor edx, edx",
    "mov r14, [rbx]",
    "mov r10, r14",
    "jmp 2b",
    "7:", // compare and exchange: rdi address, rsi old, rdx new
    "mov eax, esi",
    "lock cmpxchg [rdi], edx",
    "mov eax, eax",
    "jmp 5b",
    "8:", // go on
    "mov rax, [rbx + {fs}]",
    "wrfsbase rax",
    "mov rax, [rbx + {gs}]",
    "wrgsbase rax",
    "mov rsp, [rbx]",
    "mov eax, 15",
    "syscall",
    "9:", // the Sentry is gone
    "mov edi, 1",
    "mov eax, 231",
    "syscall",
    "ud2",
    // A new process: rax what seccomp(2) returned, rbx the slot.
    "rampart_stub_entry:",
    "test rax, rax",
    "js 9b",
    "inc eax",
    "mov [rbx + {ready}], eax",
    "lea rdi, [rbx + {ready}]",
    "mov esi, 1",
    "mov edx, 1",
    "mov eax, 202",
    "syscall",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r14d, r14d",
    "jmp 2b",
    "rampart_stub_end:",
    ".popsection",
    slot = const layout::SLOT,
    doorbell = const layout::DOORBELL,
    actions = const layout::OFF_ACTIONS,
    act_clone = const layout::ACT_CLONE,
    act_cmpxchg = const layout::ACT_CMPXCHG,
    mailbox = const layout::MAILBOX,
    mailbox_len = const layout::MAILBOX_LEN,
    fs = const layout::OFF_FS,
    gs = const layout::OFF_GS,
    ready = const layout::OFF_READY,
);

unsafe extern "C" {
    static rampart_stub_begin: u8;
    static rampart_stub_entry: u8;
    static rampart_stub_end: u8;
}

/// The stub's bytes.
pub(crate) fn code() -> &'static [u8] {
    let begin = &raw const rampart_stub_begin;
    let len = (&raw const rampart_stub_end).addr() - begin.addr();
    // SAFETY: both symbols delimit one read-only blob of the assembly above.
    unsafe { core::slice::from_raw_parts(begin, len) }
}

/// Offset of the entry of new processes.
pub(crate) fn entry_offset() -> u64 {
    ((&raw const rampart_stub_entry).addr() - (&raw const rampart_stub_begin).addr()) as u64
}
