//! Loading a program into a fresh address space.

use std::ops::Range;
use std::sync::Arc;

use abi::mm::Prot;
use abi::{Errno, page_up};
use guestmem::UserAddr;
use mm::{Layout, MemoryManager, MmLimits, SharedMemory};
use platform::{AddressSpace, Features};

use crate::aux::{CpuFacts, Ids, Pointers};
use crate::file::read_full;
use crate::image::Image;
use crate::layout::{Entropy, Plan};
use crate::script::HEAD;
use crate::segments::{self, Base, Mapped};
use crate::{ExecFile, LoadError, Opener, Program, stack};

/// Stack mapped beyond what is used, from the start.
const STACK_EXTRA: u64 = 128 << 10;

/// Everything [`load`] needs beside the program.
pub struct LoadRequest<'a> {
    /// Where to: fresh and empty.
    pub space: Arc<dyn AddressSpace>,
    /// What the platform can do.
    pub features: &'a Features,
    /// For the memory manager of the new program.
    pub shared_memory: Arc<dyn SharedMemory>,
    /// Limits of the process.
    pub limits: MmLimits,
    /// Opens the ELF interpreter.
    pub opener: &'a dyn Opener,
    /// Ids of the new program.
    pub ids: Ids,
    /// The processor.
    pub cpu: CpuFacts,
    /// Randomness.
    pub entropy: Entropy,
}

/// A program ready to run.
pub struct Loaded {
    /// Its memory.
    pub mm: Arc<MemoryManager>,
    /// First instruction: of the interpreter, when there is one.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Where the argument strings are (`/proc/PID/cmdline`).
    pub args: Range<u64>,
    /// Where the environment strings are (`/proc/PID/environ`).
    pub env: Range<u64>,
    /// The auxiliary vector (`/proc/PID/auxv`).
    pub auxv: Vec<u8>,
    /// The program (`/proc/PID/exe`).
    pub exe: Arc<dyn ExecFile>,
    /// The program's pages.
    pub image: Range<u64>,
    /// The task's new name, up to 15 bytes.
    pub command: Vec<u8>,
}

/// Loads `program`.
///
/// # Errors
/// `ENOEXEC`, `ELIBBAD`, `EINVAL`, `ENOMEM`, and what opening, reading and mapping the files say. The
/// address space is then to be dropped.
pub fn load(program: Program, request: LoadRequest<'_>) -> Result<Loaded, LoadError> {
    let plan = Plan::new(request.features, request.limits.stack, &request.entropy);
    let image = Image::parse(program.file.as_ref(), &program.head, plan.max)?;
    let interpreter = open_interpreter(&program, &image, &request, plan.max)?;
    let layout = Layout { min: plan.min, max: plan.max, mmap_top: plan.mmap_top, brk_start: 0 };
    let shared_memory = Arc::clone(&request.shared_memory);
    // The limits count from the first mapping on, but the stack's for growth only.
    let mm = MemoryManager::new(Arc::clone(&request.space), shared_memory, layout, request.limits);
    map_stack(&mm, &plan, &program, &image)?;

    let base = if interpreter.is_some() { Base::Near(plan.program_base) } else { Base::Anywhere };
    let main = segments::map(&mm, &program.file.mappable()?, &image, base)?;
    let library = match &interpreter {
        Some((file, image)) => {
            Some((segments::map(&mm, &file.mappable()?, image, Base::Anywhere)?, image.entry))
        }
        None => None,
    };
    let brk_start = heap_start(&plan, &image, &main, interpreter.is_some(), &request.entropy);
    mm.set_layout(Layout { brk_start, ..layout });

    let vdso = if request.features.host_vdso { Some(mm.map_vdso()?.0) } else { None };
    let pointers = Pointers {
        vdso,
        phdrs: main.address(image.phdrs),
        phnum: image.phnum,
        interpreter_base: library.map_or(0, |(mapped, _)| mapped.bias),
        entry: main.address(image.entry),
        random: 0,
        exec_fn: 0,
        platform: 0,
    };
    let LoadRequest { cpu, ids, entropy, .. } = &request;
    let stack = stack::build(&mm, plan.stack_top, &program, pointers, cpu, ids, entropy)?;
    mm.set_stack_start(stack.sp);
    let ip = library.map_or(pointers.entry, |(mapped, entry)| mapped.address(entry));
    if ip >= plan.max {
        return Err(LoadError::Malformed);
    }
    Ok(Loaded {
        ip,
        sp: stack.sp,
        args: stack.args,
        env: stack.env,
        auxv: stack.auxv,
        image: main.start..main.end,
        command: program.command(),
        exe: program.file,
        mm,
    })
}

/// Opens the interpreter the program names, and reads its headers.
fn open_interpreter(
    program: &Program,
    image: &Image,
    request: &LoadRequest<'_>,
    max: u64,
) -> Result<Option<(Arc<dyn ExecFile>, Image)>, LoadError> {
    let Some(path) = image.interpreter(program.file.as_ref())? else { return Ok(None) };
    let file = request.opener.open(&path)?;
    let mut head = [0; HEAD];
    read_full(file.as_ref(), 0, &mut head)?;
    let image = Image::parse(file.as_ref(), &head, max).map_err(|error| match error {
        LoadError::NotExecutable => LoadError::BadInterpreter,
        other => other,
    })?;
    Ok(Some((file, image)))
}

/// Maps what the stack needs now; the rest comes as it grows.
fn map_stack(mm: &MemoryManager, plan: &Plan, program: &Program, image: &Image) -> Result<(), LoadError> {
    let used = page_up(stack::size(program)).ok_or(Errno::ENOMEM)?;
    let limit = abi::page_down(mm.limits().stack);
    let len = used.max(used.saturating_add(STACK_EXTRA).min(limit));
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, image.executable_stack);
    Ok(mm.map_stack(UserAddr(plan.stack_top), len, prot)?)
}

/// The heap begins behind the program. One that was placed among the mappings (an interpreter started
/// by hand, a static position-independent program) would find no room there, and gets its heap where
/// programs usually are.
fn heap_start(plan: &Plan, image: &Image, main: &Mapped, interpreted: bool, entropy: &Entropy) -> u64 {
    let end = if image.relocatable && !interpreted { plan.program_base } else { main.end };
    plan.heap(end, entropy)
}
