//! The code that runs in guests: a signal handler, the doorbell, the action list, and the posting of calls.
//!
//! # Soundness
//! Position-independent, and never run in the Sentry; it is only copied. Every `syscall` instruction in
//! it may be reached by a guest with any registers: what that allows is the filter's table.
//!
//! Register use: `rbx` the slot, `r14` the `ucontext`; the doorbell passes slot, signal, `siginfo`,
//! `ucontext`, FS base and GS base, which the Sentry reads from the (stable) notification.

use core::arch::global_asm;

use crate::{filter, layout, marshal};

/// Bytes of the table of what travels.
const TABLE_LEN: usize = marshal::CALLS * 2;

global_asm!(
    ".pushsection .rodata.rampart_stub,\"a\"",
    ".balign 16",
    ".globl rampart_stub_begin, rampart_stub_entry, rampart_stub_end",
    ".globl rampart_stub_call, rampart_stub_call_entry, rampart_stub_posted, rampart_stub_waited",
    ".globl rampart_stub_done, rampart_stub_left, rampart_stub_acting, rampart_stub_call_end",
    ".globl rampart_stub_filling, rampart_stub_giving, rampart_stub_given, rampart_stub_table",
    ".globl rampart_stub_looks",
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
    "cmp rax, -4095", // a failure ends the list, unless the thread is to end next
    "jb 51f",
    "cmp qword ptr [r13 + 64], {exit}",
    "jne 55f",
    "51:",
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
    "mov rbx, r9",      // the child: registers only
    "cmp rdi, {thread}", // a thread ends with its process
    "je 60f",
    "mov edi, 1", // PR_SET_PDEATHSIG, which a clone loses
    "mov esi, 9",
    "mov eax, 157",
    "syscall",
    "60:",
    "mov rsi, -1",
    "mov rdi, rbx",
    "mov eax, {doorbell}",
    "syscall",
    "test rax, rax",
    "js 9f",
    "jz 8f",
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
    "jmp 8f", // its frame is ready
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
    // Posting a call, from a cell: r11 the address of the cell's own `syscall`, which is taken when nobody
    // looks, and behind which a posted call goes on. Uses what a call may change only: rax, rcx, r11, flags.
    "rampart_stub_call:",
    "20:",
    "jmp r11",
    "rampart_stub_call_entry:",
    "rdgsbase rcx",
    "rol rcx, 32",
    "cmp ecx, {mailbox_high}",
    "jne 20b",
    "rol rcx, 32",
    "cmp eax, 512",
    "jae 20b",
    "mov eax, eax", // as the host, which looks at the lower half only
    "cmp dword ptr [rcx + {spin}], 0",
    "je 201f",
    "bt dword ptr [rip + 30f], eax",
    "jc 202f",
    "jmp r11",
    "201:", // nobody looks: it is posted all the same where that spares the host something
    "bt dword ptr [rip + 301f], eax",
    "jnc 20b",
    "202:",
    "mov [rcx + {call}], rax",
    "mov [rcx + {call} + 8], rdi",
    "mov [rcx + {call} + 16], rsi",
    "mov [rcx + {call} + 24], rdx",
    "mov [rcx + {call} + 32], r10",
    "mov [rcx + {call} + 40], r8",
    "mov [rcx + {call} + 48], r9",
    "mov [rcx + {cell}], r11",
    // What travels with it. From here to where it is posted, registers are in the slot; a fault ends with the call
    // being made by the cell.
    "rampart_stub_filling:",
    "lea r11, [rip + 40f]",
    "movzx r9d, word ptr [r11 + rax*2]",
    "test r9d, r9d",
    "jz 37f",
    "mov qword ptr [rcx + {taking} + 8], 0",
    "mov qword ptr [rcx + {giving} + 8], 0",
    "cld",
    "mov r8, rcx",
    "mov r11d, r9d",
    "shr r11d, 7",
    "lea r10, [rip + 31f]",
    "jmp 35f",
    "31:", // what is given: it must be there to be written, at both ends; there are no more than two pages
    "mov eax, {window}",
    "cmp edx, eax",
    "cmova edx, eax",
    "test edx, edx",
    "jz 32f",
    "lock or byte ptr [rdi], 0",
    "lock or byte ptr [rdi + rdx - 1], 0",
    "mov [r8 + {giving}], rdi",
    "mov [r8 + {giving} + 8], rdx",
    "32:",
    "mov r11d, r9d",
    "lea r10, [rip + 33f]",
    "jmp 35f",
    "33:", // what is taken
    "cmp edx, {window}",
    "ja 36f",
    "test edx, edx",
    "jz 36f",
    "mov [r8 + {taking}], rdi",
    "mov rsi, rdi",
    "lea rdi, [r8 + {taken_at}]",
    "mov ecx, edx",
    "test r11d, r11d",
    "jz 34f",
    "rep movsb",
    "mov [r8 + {taking} + 8], rdx",
    "jmp 36f",
    "34:", // a text
    "lodsb",
    "stosb",
    "test al, al",
    "jz 341f",
    "dec ecx",
    "jnz 34b",
    "jmp 36f",
    "341:",
    "sub edx, ecx",
    "inc edx",
    "mov [r8 + {taking} + 8], rdx",
    "jmp 36f",
    // To r10, with rdi where the argument points that the low bits of r11 name, edx how much there is, which is
    // nothing below or above what guests have (many calls take null for nothing), and r11 the length's code.
    "35:",
    "xor edx, edx",
    "mov ecx, r11d",
    "and ecx, 7",
    "jz 352f",
    "shr r11d, 3",
    "and r11d, 15",
    "lea rax, [rip + 41f]",
    "movzx eax, word ptr [rax + r11*2]",
    "mov edi, eax",
    "and edi, 0x7fff",
    "mov rsi, [r8 + rcx*8 + {call} + 8]",
    "test eax, 0x8000",
    "mov eax, 2 * {window}",
    "jz 351f",
    "cmp rsi, rax",
    "cmova rsi, rax",
    "imul edi, esi",
    "351:",
    "mov esi, edi",
    "mov rdi, [r8 + rcx*8 + {call}]",
    "cmp rdi, {guest_low}",
    "jb 352f",
    "mov rax, rdi",
    "shr rax, 32",
    "cmp eax, {guest_high}",
    "cmovb edx, esi",
    "352:",
    "jmp r10",
    "36:",
    "mov rcx, r8",
    "mov rdi, [rcx + {call} + 8]",
    "mov rsi, [rcx + {call} + 16]",
    "mov rdx, [rcx + {call} + 24]",
    "mov r10, [rcx + {call} + 32]",
    "mov r8, [rcx + {call} + 40]",
    "37:",
    "mov r9, [rcx + {call} + 48]",
    "mov dword ptr [rcx + {state}], {posted}",
    "rampart_stub_posted:",
    "28:",
    "cmp dword ptr [rcx + {spin}], 0",
    "je 221f",
    "mov r11d, dword ptr [rip + 42f]",
    "21:",
    "cmp dword ptr [rcx + {state}], {posted}",
    "jne 211f",
    "pause",
    "dec r11d",
    "jnz 21b",
    "mov dword ptr [rcx + {spin}], 0", // nobody comes
    "jmp 221f",
    "211:",
    "mov r11d, dword ptr [rip + 43f]",
    "212:",
    "cmp dword ptr [rcx + {state}], {taken}",
    "jne 22f",
    "pause",
    "dec r11d",
    "jnz 212b",
    "22:",
    "cmp dword ptr [rcx + {state}], {done}",
    "je 23f",
    "cmp dword ptr [rcx + {state}], {act}",
    "je 25f",
    "221:",
    "mov eax, {wait}",
    "syscall",
    "rampart_stub_waited:", // rax is the result, unless there is something to do first
    "rdgsbase rcx",
    "cmp dword ptr [rcx + {state}], {act_wait}",
    "je 25f",
    "jmp 24f",
    "rampart_stub_done:",
    "23:",
    "mov rax, [rcx + {result}]",
    "mov dword ptr [rcx + {state}], {idle}",
    "rampart_stub_left:",
    "24:",
    "cmp qword ptr [rcx + {give} + 8], 0",
    "je 29f",
    "rampart_stub_giving:", // taking what it returns to its place
    "cld",
    "mov r11, rcx",
    "mov rdi, [r11 + {give}]",
    "lea rsi, [r11 + rdi + {given_at}]",
    "add rdi, [r11 + {giving}]",
    "mov rcx, [r11 + {give} + 8]",
    "rep movsb",
    "mov rcx, r11",
    "mov rdi, [rcx + {call} + 8]",
    "mov rsi, [rcx + {call} + 16]",
    "mov qword ptr [rcx + {give} + 8], 0",
    "rampart_stub_given:",
    "29:",
    "mov r11, [rcx + {cell}]",
    "add r11, 2",
    "jmp r11",
    // Running actions in between: all registers that a call keeps are in the slot.
    "rampart_stub_acting:",
    "25:",
    "mov [rcx + {kept}], r12",
    "mov [rcx + {kept} + 8], r13",
    "mov r12, [rcx + {count}]",
    "lea r13, [rcx + {actions}]",
    "26:",
    "mov rax, [r13]",
    "mov rdi, [r13 + 8]",
    "mov rsi, [r13 + 16]",
    "mov rdx, [r13 + 24]",
    "mov r10, [r13 + 32]",
    "mov r8, [r13 + 40]",
    "mov r9, [r13 + 48]",
    "syscall",
    "mov [r13 + 56], rax",
    "cmp rax, -4095",
    "jae 27f",
    "add r13, 64",
    "dec r12",
    "jnz 26b",
    "27:",
    "rdgsbase rcx",
    "mov r12, [rcx + {kept}]",
    "mov r13, [rcx + {kept} + 8]",
    "mov rdi, [rcx + {call} + 8]",
    "mov rsi, [rcx + {call} + 16]",
    "mov rdx, [rcx + {call} + 24]",
    "mov r10, [rcx + {call} + 32]",
    "mov r8, [rcx + {call} + 40]",
    "mov r9, [rcx + {call} + 48]",
    "cmp dword ptr [rcx + {state}], {act_wait}",
    "mov dword ptr [rcx + {state}], {taken}",
    "je 221b",
    "jmp 28b",
    "rampart_stub_call_end:",
    ".balign 8",
    "30:", // calls that may be posted
    ".quad {map0}, {map1}, {map2}, {map3}, {map4}, {map5}, {map6}, {map7}",
    "301:", // those that are better posted even to the host
    ".quad {rung0}, {rung1}, {rung2}, {rung3}, {rung4}, {rung5}, {rung6}, {rung7}",
    "rampart_stub_table:", // what travels, and lengths: see `code`
    "40:",
    ".zero {table_len}",
    "41:",
    ".zero {lengths_len}",
    "rampart_stub_looks:", // how often to look whether somebody has taken a call, and whether it is done
    "42:",
    ".long 0",
    "43:",
    ".long 0",
    "rampart_stub_end:",
    ".popsection",
    slot = const layout::SLOT,
    doorbell = const layout::DOORBELL,
    actions = const layout::OFF_ACTIONS,
    act_clone = const layout::ACT_CLONE,
    thread = const hostproc::ops::CLONE_THREAD,
    act_cmpxchg = const layout::ACT_CMPXCHG,
    mailbox = const layout::MAILBOX,
    mailbox_len = const layout::MAILBOX_LEN,
    fs = const layout::OFF_FS,
    gs = const layout::OFF_GS,
    ready = const layout::OFF_READY,
    exit = const libc::SYS_exit,
    mailbox_high = const layout::MAILBOX >> 32,
    spin = const layout::OFF_SPIN,
    call = const layout::OFF_CALL,
    cell = const layout::OFF_CELL,
    result = const layout::OFF_RESULT,
    state = const layout::OFF_STATE,
    idle = const layout::IDLE,
    posted = const layout::POSTED,
    taken = const layout::TAKEN,
    done = const layout::DONE,
    wait = const layout::WAIT,
    act = const layout::ACT,
    act_wait = const layout::ACT_WAIT,
    kept = const layout::OFF_KEPT,
    count = const layout::OFF_COUNT,
    taking = const layout::OFF_TAKING,
    giving = const layout::OFF_GIVING,
    give = const layout::OFF_GIVE,
    taken_at = const layout::OFF_TAKEN,
    given_at = const layout::OFF_GIVEN,
    window = const layout::WINDOW,
    guest_low = const layout::MIN_ADDRESS_FAST,
    guest_high = const layout::MAX_ADDRESS >> 32,
    table_len = const TABLE_LEN,
    lengths_len = const marshal::LENGTHS.len() * 2,
    map0 = const filter::POSTABLE[0],
    map1 = const filter::POSTABLE[1],
    map2 = const filter::POSTABLE[2],
    map3 = const filter::POSTABLE[3],
    map4 = const filter::POSTABLE[4],
    map5 = const filter::POSTABLE[5],
    map6 = const filter::POSTABLE[6],
    map7 = const filter::POSTABLE[7],
    rung0 = const marshal::RUNG[0],
    rung1 = const marshal::RUNG[1],
    rung2 = const marshal::RUNG[2],
    rung3 = const marshal::RUNG[3],
    rung4 = const marshal::RUNG[4],
    rung5 = const marshal::RUNG[5],
    rung6 = const marshal::RUNG[6],
    rung7 = const marshal::RUNG[7],
);

unsafe extern "C" {
    static rampart_stub_begin: u8;
    static rampart_stub_entry: u8;
    static rampart_stub_end: u8;
    static rampart_stub_call: u8;
    static rampart_stub_call_entry: u8;
    static rampart_stub_posted: u8;
    static rampart_stub_waited: u8;
    static rampart_stub_done: u8;
    static rampart_stub_left: u8;
    static rampart_stub_acting: u8;
    static rampart_stub_filling: u8;
    static rampart_stub_giving: u8;
    static rampart_stub_given: u8;
    static rampart_stub_table: u8;
    static rampart_stub_looks: u8;
    static rampart_stub_call_end: u8;
}

/// The stub's bytes, with its tables.
pub(crate) fn code() -> Vec<u8> {
    let begin = &raw const rampart_stub_begin;
    let len = (&raw const rampart_stub_end).addr() - begin.addr();
    // SAFETY: both symbols delimit one read-only blob of the assembly above.
    let mut code = unsafe { core::slice::from_raw_parts(begin, len) }.to_vec();
    let table = (&raw const rampart_stub_table).addr() - begin.addr();
    let words = marshal::TABLE.iter().chain(&marshal::LENGTHS).flat_map(|word| word.to_le_bytes());
    for (to, from) in code.iter_mut().skip(table).zip(words) {
        *to = from;
    }
    let looks = (&raw const rampart_stub_looks).addr() - begin.addr();
    let each = nanos_of_a_look();
    let words = layout::LOOKING.iter().map(|time| (time.as_nanos() as u32 / each).max(1));
    for (to, from) in code.iter_mut().skip(looks).zip(words.flat_map(u32::to_le_bytes)) {
        *to = from;
    }
    code
}

/// What one turn of looking takes: processors differ by a factor of ten in how long they pause.
fn nanos_of_a_look() -> u32 {
    const LOOKS: u32 = 500;
    let time = || {
        let began = std::time::Instant::now();
        (0..LOOKS).for_each(|_| std::hint::spin_loop());
        began.elapsed().as_nanos() as u32 / LOOKS
    };
    // The least of some: others may have had the processor in between.
    (0..3).map(|_| time()).min().unwrap_or(0).max(1)
}

/// Offset of the entry of new processes.
pub(crate) fn entry_offset() -> u64 {
    ((&raw const rampart_stub_entry).addr() - (&raw const rampart_stub_begin).addr()) as u64
}

/// Where in the code that posts calls a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posting {
    /// Nothing is posted yet, `rax` is the number and `r11` the cell's call.
    Before,
    /// It is posted, or withdrawn again; number and cell are in the slot.
    Posted,
    /// The result is in the slot, the cell too.
    Done,
    /// It gathers what travels with the call, and its registers are in the slot.
    Filling,
    /// It takes what the call returns to its place; the result is in `rax`, the rest in the slot.
    Giving,
    /// The result is in `rax`, the cell in the slot.
    Left,
    /// It runs actions, and its registers are in the slot.
    Acting,
}

/// Which part of the code that posts calls has the instruction at guest address `ip`.
pub(crate) fn posting(ip: u64) -> Option<Posting> {
    let at = (&raw const rampart_stub_begin).addr() as u64 + ip.checked_sub(layout::STUB)?;
    let marks = [
        ((&raw const rampart_stub_call).addr(), Posting::Before),
        ((&raw const rampart_stub_filling).addr(), Posting::Filling),
        ((&raw const rampart_stub_posted).addr(), Posting::Posted),
        ((&raw const rampart_stub_waited).addr(), Posting::Left),
        ((&raw const rampart_stub_done).addr(), Posting::Done),
        ((&raw const rampart_stub_left).addr(), Posting::Left),
        ((&raw const rampart_stub_giving).addr(), Posting::Giving),
        ((&raw const rampart_stub_given).addr(), Posting::Left),
        ((&raw const rampart_stub_acting).addr(), Posting::Acting),
    ];
    if at >= (&raw const rampart_stub_call_end).addr() as u64 {
        return None;
    }
    marks.iter().rev().find(|(mark, _)| at >= *mark as u64).map(|(_, posting)| *posting)
}

/// Guest address of the code that posts calls.
pub(crate) fn call_entry() -> u64 {
    let offset = (&raw const rampart_stub_call_entry).addr() - (&raw const rampart_stub_begin).addr();
    layout::STUB + offset as u64
}
