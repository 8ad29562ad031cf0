//! The zygote: a process with nothing in it, of which all guest processes are clones.
//!
//! It is cloned from the Sentry once, before the Sentry locks itself in, so that guests neither carry
//! the Sentry's seccomp filter nor a copy of its memory, and can be made while the Sentry has many
//! threads. It has one thread, no stack, one descriptor, no capabilities, and two lists of host calls that the
//! Sentry wrote for it: what it does once (let go of everything that was the Sentry's), and what each of its clones
//! does before it jumps to the stub.
//!
//! # Soundness
//! Between the `clone` and the jump into the image the child touches registers only. The image is
//! position-independent code and data in a mapping of its own, made and filled before the `clone`.

use core::arch::{asm, global_asm};
use std::io::Error;

use bpf::Insn;
use hostproc::{Vdso, rseq};

use super::sys::raw_call;
use crate::layout::{
    BASES, BASES_LEN, CELLS, CELLS_LEN, CLONE_ZYGOTE, INTERRUPT, MAILBOX, MAILBOX_LEN, MAX_ADDRESS,
    OFF_STACK, PAGE, POINTERS, POINTERS_LEN, SLOT, STUB, STUB_LEN, USER_END,
};

const SETUP_COUNT: usize = 0;
const CHILD_COUNT: usize = 8;
const ENTRY: usize = 16;
const PID: usize = 24;
const FPROG: usize = 32;
const MSG: usize = 64;
const IOV: usize = 128;
const CONTROL: usize = 160;
const CONTROL_LEN: u64 = 24;
const ONES: usize = 192;
const SIGSTACK: usize = 200;
const IGNORE: usize = 232;
const HANDLE: usize = 264;
const ZEROS: usize = 296;
const CAP_HEADER: usize = 336;
const BYTE: usize = 344;
const NAME: usize = 352;
const SETUP: usize = 512;
const CHILD: usize = SETUP + 160 * STEP;
const FILTER: usize = CHILD + 16 * STEP;
const FILTER_MAX: usize = 1000;
const STEP: usize = 64;
const DATA_LEN: usize = (FILTER + FILTER_MAX * 8).next_multiple_of(PAGE as usize);

global_asm!(
    ".pushsection .rodata.rampart_zygote,\"a\"",
    ".balign 16",
    ".globl rampart_zygote_begin, rampart_zygote_end",
    "rampart_zygote_begin:", // rbp: the data
    "lea r13, [rbp + {setup}]",
    "mov r12, [rbp + {setup_count}]",
    "lea r15, [rip + 1f]",
    "jmp 4f",
    "1:", // one request: a mailbox, which becomes descriptor 1
    "xor edi, edi",
    "lea rsi, [rbp + {msg}]",
    "xor edx, edx",
    "mov eax, 47", // recvmsg
    "syscall",
    "test rax, rax",
    "jle 9f",
    "mov edi, {clone}",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56", // clone
    "syscall",
    "test rax, rax",
    "jz 2f",
    "mov [rbp + {pid}], rax",
    "mov edi, 1",
    "mov eax, 3", // close
    "syscall",
    "xor edi, edi",
    "lea rsi, [rbp + {pid}]",
    "mov edx, 8",
    "mov eax, 1", // write
    "syscall",
    "test rax, rax",
    "js 9f",
    "mov qword ptr [rbp + {msg} + 40], {control_len}",
    "jmp 1b",
    "2:", // the child
    "lea r13, [rbp + {child}]",
    "mov r12, [rbp + {child_count}]",
    "lea r15, [rip + 3f]",
    "jmp 4f",
    "3:",
    "mov edi, 1",
    "mov esi, 0x28", // NEW_LISTENER, WAIT_KILLABLE_RECV
    "lea rdx, [rbp + {fprog}]",
    "mov eax, 317", // seccomp
    "syscall",
    "movabs rbx, {mailbox}",
    "jmp qword ptr [rbp + {entry}]",
    "4:", // a list: r13 the next step, r12 how many, r15 where to go on
    "mov rax, [r13]",
    "mov rdi, [r13 + 8]",
    "mov rsi, [r13 + 16]",
    "mov rdx, [r13 + 24]",
    "mov r10, [r13 + 32]",
    "mov r8, [r13 + 40]",
    "mov r9, [r13 + 48]",
    "syscall",
    "test rax, rax",
    "jns 5f",
    "cmp qword ptr [r13 + 56], 0",
    "je 9f",
    "5:",
    "add r13, {step}",
    "dec r12",
    "jnz 4b",
    "jmp r15",
    "9:",
    "mov edi, 1",
    "mov eax, 231", // exit_group
    "syscall",
    "ud2",
    "rampart_zygote_end:",
    ".popsection",
    setup = const SETUP,
    setup_count = const SETUP_COUNT,
    child = const CHILD,
    child_count = const CHILD_COUNT,
    msg = const MSG,
    clone = const CLONE_ZYGOTE,
    pid = const PID,
    control_len = const CONTROL_LEN,
    fprog = const FPROG,
    mailbox = const MAILBOX,
    entry = const ENTRY,
    step = const STEP,
);

unsafe extern "C" {
    static rampart_zygote_begin: u8;
    static rampart_zygote_end: u8;
}

fn code() -> &'static [u8] {
    let begin = &raw const rampart_zygote_begin;
    let len = (&raw const rampart_zygote_end).addr() - begin.addr();
    // SAFETY: both symbols delimit one read-only blob of the assembly above.
    unsafe { core::slice::from_raw_parts(begin, len) }
}

/// What may become of a step that fails.
#[derive(Clone, Copy)]
enum Failure {
    Fatal = 0,
    Ignored = 1,
}

/// The image of a zygote: a page of code, the data, and a page that becomes the stub.
pub(crate) struct Image {
    base: *mut u8,
    steps: [usize; 2],
}

/// Which list a step is added to.
#[derive(Clone, Copy)]
enum List {
    Setup = 0,
    Child = 1,
}

const IMAGE_LEN: usize = PAGE as usize + DATA_LEN + STUB_LEN as usize;

impl Image {
    /// Makes one for clones with `filter`, of a zygote that talks on our descriptor `socket`. Guests get what is
    /// behind `table` as pointers and cells.
    pub(crate) fn new(
        filter: &[Insn],
        socket: i32,
        vdso: Option<&Vdso>,
        table: Option<i32>,
    ) -> Result<Self, Error> {
        let hint = std::ptr::without_provenance_mut(0x2000_0000_0000);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping where the kernel likes.
        let base = unsafe { libc::mmap(hint, IMAGE_LEN, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let mut image = Self { base: base.cast(), steps: [0; 2] };
        if filter.len() > FILTER_MAX || base.addr() as u64 > MAX_ADDRESS - IMAGE_LEN as u64 {
            return Err(Error::from_raw_os_error(libc::ENOMEM));
        }
        image.bytes(0, code());
        image.bytes(PAGE as usize + DATA_LEN, &super::stub::code());
        image.records(filter);
        image.setup(socket, vdso, table);
        image.child();
        // SAFETY: the first page of our mapping.
        if unsafe { libc::mprotect(base, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC) } < 0 {
            return Err(Error::last_os_error());
        }
        Ok(image)
    }

    /// What of it is left in every clone: address and length.
    pub(crate) fn leftover(&self) -> (u64, u64) {
        (self.base.addr() as u64, PAGE + DATA_LEN as u64)
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= IMAGE_LEN, "an image's parts fit");
        // SAFETY: the range lies in our mapping, as just checked.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.wrapping_add(at), bytes.len()) };
    }

    fn words(&mut self, at: usize, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.bytes(PAGE as usize + at + i * 8, &word.to_le_bytes());
        }
    }

    /// Address of a datum.
    fn at(&self, offset: usize) -> u64 {
        self.base.addr() as u64 + PAGE + offset as u64
    }

    fn step(&mut self, list: List, failure: Failure, nr: i64, args: &[u64]) {
        let (count, limit, offset, counter) = match list {
            List::Setup => (&mut self.steps[0], (CHILD - SETUP) / STEP, SETUP, SETUP_COUNT),
            List::Child => (&mut self.steps[1], (FILTER - CHILD) / STEP, CHILD, CHILD_COUNT),
        };
        assert!(*count < limit, "a list's steps fit");
        let at = offset + *count * STEP;
        *count += 1;
        let count = *count as u64;
        self.words(at, &[nr as u64, 0, 0, 0, 0, 0, 0, failure as u64]);
        self.words(at + 8, args);
        self.words(counter, &[count]);
    }

    fn records(&mut self, filter: &[Insn]) {
        self.words(ENTRY, &[STUB + super::stub::entry_offset()]);
        let filter_at = self.at(FILTER);
        self.words(FPROG, &[filter.len() as u64, filter_at]);
        for (i, insn) in filter.iter().enumerate() {
            let word = u64::from(insn.code)
                | u64::from(insn.jt) << 16
                | u64::from(insn.jf) << 24
                | u64::from(insn.k) << 32;
            self.words(FILTER + i * 8, &[word]);
        }
        let (iov, control, byte) = (self.at(IOV), self.at(CONTROL), self.at(BYTE));
        self.words(MSG, &[0, 0, iov, 1, control, CONTROL_LEN, 0]);
        self.words(IOV, &[byte, 1]);
        self.words(ONES, &[u64::MAX]);
        self.words(SIGSTACK, &[MAILBOX + OFF_STACK as u64, 0, SLOT - OFF_STACK as u64]);
        let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | 0x0400_0000) as u64;
        self.words(IGNORE, &[1, 0, 0, 0]);
        self.words(HANDLE, &[STUB, flags, STUB, u64::MAX]);
        self.words(CAP_HEADER, &[0x2008_0522]);
        self.bytes(PAGE as usize + NAME, b"guest\0");
    }

    /// What the zygote does once.
    fn setup(&mut self, socket: i32, vdso: Option<&Vdso>, table: Option<i32>) {
        use Failure::{Fatal, Ignored};
        let list = List::Setup;
        let (ones, zeros, name, header) = (self.at(ONES), self.at(ZEROS), self.at(NAME), self.at(CAP_HEADER));
        self.step(list, Fatal, libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]);
        self.step(list, Fatal, libc::SYS_rt_sigprocmask, &[0, ones, 0, 8]);
        for len in rseq::lengths() {
            let registered = [rseq::area(), len, rseq::UNREGISTER, rseq::SIGNATURE];
            self.step(list, Ignored, libc::SYS_rseq, &registered);
        }
        for signal in 1..=64 {
            let action = self.at(if is_ours(signal) { HANDLE } else { IGNORE });
            self.step(list, Ignored, libc::SYS_rt_sigaction, &[signal as u64, action, 0, 8]);
        }
        self.step(list, Ignored, libc::SYS_setsid, &[]);
        let mut kept = vec![self.leftover(), (STUB, STUB_LEN)];
        if let Some(table) = table {
            let shared = (libc::MAP_FIXED | libc::MAP_SHARED) as u64;
            let private = (libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
            let table = table as u64;
            let mappings = [
                [POINTERS, POINTERS_LEN, 1, shared, table, 0],
                [CELLS, CELLS_LEN, 5, shared, table, POINTERS_LEN],
                [BASES, BASES_LEN, 3, private, u64::MAX, 0],
            ];
            for mapping in &mappings {
                self.step(list, Fatal, libc::SYS_mmap, mapping);
                kept.push((mapping[0], mapping[1]));
            }
        }
        self.step(list, Fatal, libc::SYS_dup2, &[socket as u64, 0]);
        self.step(list, Fatal, libc::SYS_close_range, &[1, u64::from(u32::MAX), 0]);
        self.step(list, Fatal, libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1]);
        self.step(list, Fatal, libc::SYS_capset, &[header, zeros]);
        self.step(list, Fatal, libc::SYS_prlimit64, &[0, libc::RLIMIT_CORE as u64, zeros, 0]);
        self.step(list, Ignored, libc::SYS_prctl, &[libc::PR_SET_NAME as u64, name]);
        if let Some(vdso) = vdso {
            for (from, to, len) in vdso.moves() {
                self.step(list, Ignored, libc::SYS_mremap, &[from, len, len, 3, to]);
            }
            kept.extend([vdso.original(), vdso.kept()]);
        }
        let stub = self.base.addr() as u64 + PAGE + DATA_LEN as u64;
        self.step(list, Fatal, libc::SYS_mremap, &[stub, STUB_LEN, STUB_LEN, 3, STUB]);
        self.step(list, Fatal, libc::SYS_mprotect, &[STUB, STUB_LEN, 5]);
        kept.sort_unstable();
        let mut from = 0;
        for (at, len) in kept {
            if at > from {
                self.step(list, Fatal, libc::SYS_munmap, &[from, at - from]);
            }
            from = from.max(at + len);
        }
        self.step(list, Fatal, libc::SYS_munmap, &[from, USER_END - from]);
        if let Some(vdso) = vdso {
            // Nothing is left there, or the host has sealed it where it was.
            let (at, len) = vdso.original();
            self.step(list, Ignored, libc::SYS_munmap, &[at, len]);
        }
        // mseal(2), where the kernel has it: the stub stays what it is whatever a guest does.
        self.step(list, Ignored, 462, &[STUB, STUB_LEN, 0]);
    }

    /// What each clone does.
    fn child(&mut self) {
        let (list, fatal) = (List::Child, Failure::Fatal);
        let stack = self.at(SIGSTACK);
        let fixed = (libc::MAP_FIXED | libc::MAP_SHARED) as u64;
        self.step(list, fatal, libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]);
        self.step(list, fatal, libc::SYS_mmap, &[MAILBOX, MAILBOX_LEN, 3, fixed, 1, 0]);
        self.step(list, fatal, libc::SYS_madvise, &[MAILBOX, MAILBOX_LEN, libc::MADV_DONTFORK as u64]);
        self.step(list, fatal, libc::SYS_sigaltstack, &[stack, 0]);
        self.step(list, fatal, libc::SYS_close_range, &[0, u64::from(u32::MAX), 0]);
    }

    /// Clones the zygote; its id. It dies with the calling thread, whose children its clones are. No
    /// signal tells their end, so that nobody else in this program waits for them by accident.
    pub(crate) fn launch(&self) -> Result<i32, Error> {
        // SAFETY: fork semantics: the child works on its copy, see the module.
        let pid = unsafe { raw_call(libc::SYS_clone, [0; 6]) };
        if pid == 0 {
            // SAFETY: we are the child; the image never returns.
            unsafe {
                asm!("mov rbp, {data}", "jmp {code}", data = in(reg) self.at(0), code = in(reg) self.base,
                    options(noreturn));
            }
        }
        if pid < 0 { Err(Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
    }
}

/// The signals whose handler is the stub.
fn is_ours(signal: i32) -> bool {
    signal == INTERRUPT
        || [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP]
            .contains(&signal)
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nothing points into it.
        unsafe { libc::munmap(self.base.cast(), IMAGE_LEN) };
    }
}

#[cfg(test)]
mod tests {
    use platform::Platform;

    use crate::layout::{MAILBOX, PAGE, STUB};
    use hostproc::PLACES;

    /// The Sentry's stack lies there once in some 300 starts.
    #[test]
    fn starts_where_something_of_ours_is_in_the_way() {
        for at in [STUB, MAILBOX + 0x10_0000, PLACES[0]] {
            let wanted = std::ptr::without_provenance_mut(at as usize);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: a fresh mapping that replaces none.
            let got = unsafe { libc::mmap(wanted, PAGE as usize, libc::PROT_READ, flags, -1, 0) };
            // Either it is ours now or the host had put something there by itself: both will do.
            let in_use = std::io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
            assert!(got == wanted || in_use);
        }
        let platform = crate::Systrap::new().expect("this machine can run systrap");
        for _ in 0..3 {
            platform.new_address_space().expect("a space");
        }
    }
}
