//! The headers of an ELF file: read once, checked once. What an [`Image`] holds is sensible; the numbers
//! in it are still only claims about sizes, which the memory manager bounds.

use abi::{Errno, page_down, page_up};
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_PHDR};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;

use crate::file::read_full;
use crate::{ExecFile, LoadError};

use abi::mm::Prot;

/// Bytes of an ELF64 header.
const HEADER: usize = 64;
/// Bytes of its identification.
const IDENT: usize = 16;
/// Bytes of one program header.
pub(crate) const PHENT: u16 = 56;
/// Most bytes of program headers.
const MAX_PHDRS: usize = 65536;
/// Most bytes of an interpreter's path with its NUL.
const PATH_MAX: u64 = 4096;

/// A `PT_LOAD` segment. `vaddr + mem_size` does not overflow, and `file_size <= mem_size`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) vaddr: u64,
    pub(crate) offset: u64,
    pub(crate) file_size: u64,
    pub(crate) mem_size: u64,
    pub(crate) prot: Prot,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.vaddr.saturating_add(self.mem_size)
    }
}

/// What an ELF file says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Position-independent?
    pub(crate) relocatable: bool,
    pub(crate) entry: u64,
    pub(crate) phnum: u16,
    /// Where the program headers are in memory, before the load bias.
    pub(crate) phdrs: u64,
    /// In the order of the file; at least one.
    pub(crate) segments: Vec<Segment>,
    /// Greatest power of two the segments want to be aligned to.
    pub(crate) align: u64,
    pub(crate) executable_stack: bool,
    interpreter: Option<(u64, u64)>,
}

impl Image {
    /// Reads the headers; `head` is the start of the file. `ENOEXEC` for what is no x86-64 program,
    /// `EINVAL` for headers that cannot be meant.
    pub(crate) fn parse(file: &dyn ExecFile, head: &[u8], max: u64) -> Result<Self, LoadError> {
        let header = parse_header(head).ok_or(LoadError::NotExecutable)?;
        let headers = read_program_headers(file, &header)?;
        let mut image = Self {
            relocatable: header.e_type == ET_DYN,
            entry: header.e_entry,
            phnum: header.e_phnum,
            phdrs: 0,
            segments: Vec::new(),
            align: abi::PAGE_SIZE,
            executable_stack: false,
            interpreter: None,
        };
        for ph in &headers {
            image.add(ph, max)?;
        }
        image.phdrs = phdr_address(&headers, header.e_phoff);
        if image.segments.is_empty() {
            return Err(LoadError::Malformed);
        }
        Ok(image)
    }

    fn add(&mut self, ph: &ProgramHeader, max: u64) -> Result<(), LoadError> {
        match ph.p_type {
            PT_LOAD => {
                self.segments.push(segment(ph, max)?);
                if ph.p_align.is_power_of_two() && ph.p_align <= max {
                    self.align = self.align.max(ph.p_align);
                }
            }
            PT_INTERP if self.interpreter.is_none() => {
                if ph.p_filesz < 2 || ph.p_filesz > PATH_MAX {
                    return Err(LoadError::NotExecutable);
                }
                self.interpreter = Some((ph.p_offset, ph.p_filesz));
            }
            PT_GNU_STACK => self.executable_stack = ph.p_flags & PF_X != 0,
            _ => {}
        }
        Ok(())
    }

    /// The path of the interpreter the program asks for.
    pub(crate) fn interpreter(&self, file: &dyn ExecFile) -> Result<Option<Vec<u8>>, LoadError> {
        let Some((offset, len)) = self.interpreter else { return Ok(None) };
        let mut path = vec![0; len as usize];
        if read_full(file, offset, &mut path)? < path.len() {
            return Err(Errno::EIO.into());
        }
        if path.pop() != Some(0) {
            return Err(LoadError::NotExecutable);
        }
        // The name ends at the first NUL as any string.
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        path.truncate(end);
        Ok(Some(path))
    }

    /// First and last page boundary of all segments.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        let start = self.segments.iter().map(|segment| page_down(segment.vaddr)).min()?;
        let end = self.segments.iter().map(Segment::end).max().and_then(page_up)?;
        (start < end).then_some((start, end))
    }
}

fn parse_header(head: &[u8]) -> Option<FileHeader<LittleEndian>> {
    let ident = head.get(..IDENT)?;
    let tail = head.get(IDENT..HEADER)?;
    let ident = elf::file::parse_ident::<LittleEndian>(ident).ok()?;
    let header = FileHeader::parse_tail(ident, tail).ok()?;
    let program = matches!(header.e_type, ET_EXEC | ET_DYN);
    let ours = header.class == Class::ELF64 && header.e_machine == EM_X86_64;
    (program && ours && header.e_phentsize == PHENT).then_some(header)
}

fn read_program_headers(
    file: &dyn ExecFile,
    header: &FileHeader<LittleEndian>,
) -> Result<Vec<ProgramHeader>, LoadError> {
    let size = usize::from(header.e_phnum) * usize::from(PHENT);
    if size == 0 || size > MAX_PHDRS {
        return Err(LoadError::NotExecutable);
    }
    let mut bytes = vec![0; size];
    if read_full(file, header.e_phoff, &mut bytes).map_err(|_| LoadError::NotExecutable)? < size {
        return Err(LoadError::NotExecutable);
    }
    Ok(ParsingTable::new(LittleEndian, Class::ELF64, &bytes).iter().collect())
}

fn segment(ph: &ProgramHeader, max: u64) -> Result<Segment, LoadError> {
    let fits = ph.p_memsz <= max && ph.p_vaddr <= max - ph.p_memsz;
    // A page of the file is a page of memory, so both must begin at the same place in one.
    let congruent = ph.p_filesz == 0 || ph.p_vaddr % abi::PAGE_SIZE == ph.p_offset % abi::PAGE_SIZE;
    let inside = ph.p_offset.checked_add(ph.p_filesz).and_then(page_up).is_some();
    if ph.p_filesz > ph.p_memsz || !fits || !congruent || !inside {
        return Err(LoadError::Malformed);
    }
    let mut prot = Prot::empty();
    prot.set(Prot::READ, ph.p_flags & PF_R != 0);
    prot.set(Prot::WRITE, ph.p_flags & PF_W != 0);
    prot.set(Prot::EXEC, ph.p_flags & PF_X != 0);
    Ok(Segment { vaddr: ph.p_vaddr, offset: ph.p_offset, file_size: ph.p_filesz, mem_size: ph.p_memsz, prot })
}

/// Where the headers land in memory: in the segment that holds their place in the file, or where
/// `PT_PHDR` says.
fn phdr_address(headers: &[ProgramHeader], offset: u64) -> u64 {
    let holds = |ph: &&ProgramHeader| {
        ph.p_type == PT_LOAD && offset.checked_sub(ph.p_offset).is_some_and(|within| within < ph.p_filesz)
    };
    let load = headers.iter().find(holds).map(|ph| (offset - ph.p_offset).wrapping_add(ph.p_vaddr));
    load.or_else(|| headers.iter().find(|ph| ph.p_type == PT_PHDR).map(|ph| ph.p_vaddr)).unwrap_or(0)
}
