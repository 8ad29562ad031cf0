//! The texts of `/proc/PID/maps`, `smaps` and `statm` (`proc(5)`).
//!
//! They are made from a snapshot: names are asked of the files with no lock held.

use std::fmt::Write;

use abi::fs::{dev_major, dev_minor};
use abi::mm::Prot;
use abi::{PAGE_SIZE, page_up};
use guestmem::UserAddr;

use crate::manager::MemoryManager;
use crate::vma::{Source, Vma, VmaFlags};

/// Column at which the name begins.
const NAME_COLUMN: usize = 73;
/// Pages of one mapping whose residency `smaps` asks for at once.
const PIECE_PAGES: u64 = 16384;

/// Addresses by which anonymous mappings get a name.
struct Places {
    heap: (u64, u64),
    stack: u64,
}

impl MemoryManager {
    fn places(&self) -> Places {
        let (layout, stack) = (self.layout(), self.stack_start());
        let end = page_up(self.with(|state, _| state.brk)).unwrap_or_default();
        Places { heap: (layout.brk_start, end), stack }
    }

    /// `/proc/PID/maps`.
    pub fn maps_text(&self) -> Vec<u8> {
        let places = self.places();
        let mut out = Vec::new();
        for vma in self.vmas() {
            places.line(&vma, &mut out);
        }
        out
    }

    /// `/proc/PID/smaps`. Resident means: in memory, for a file also through another process.
    pub fn smaps_text(&self) -> Vec<u8> {
        let places = self.places();
        let mut out = Vec::new();
        for vma in self.vmas() {
            places.line(&vma, &mut out);
            let resident = self.resident_bytes(&vma);
            out.extend_from_slice(details(&vma, resident).as_bytes());
        }
        out
    }

    /// `/proc/PID/statm`.
    pub fn statm_text(&self) -> Vec<u8> {
        let sizes = self.sizes();
        let pages = |bytes: u64| bytes / PAGE_SIZE;
        format!(
            "{} {} {} {} 0 {} 0\n",
            pages(sizes.total),
            pages(sizes.resident),
            pages(sizes.shared),
            pages(sizes.exec),
            pages(sizes.data.saturating_add(sizes.stack)),
        )
        .into_bytes()
    }

    fn resident_bytes(&self, vma: &Vma) -> u64 {
        let mut resident = 0u64;
        let mut at = vma.start;
        while at < vma.end {
            let pages = ((vma.end - at) / PAGE_SIZE).clamp(1, PIECE_PAGES);
            // The mapping may be gone by now, and then counts for nothing.
            let Ok(bits) = self.space().resident_pages(UserAddr(at), pages as usize) else { break };
            resident += bits.iter().filter(|bit| **bit).count() as u64 * PAGE_SIZE;
            at = at.saturating_add(pages * PAGE_SIZE);
        }
        resident
    }
}

impl Places {
    fn line(&self, vma: &Vma, out: &mut Vec<u8>) {
        let (offset, identity) = match &vma.source {
            Source::File { file, offset } => (*offset, Some(file.identity())),
            _ => (0, None),
        };
        let (dev, ino) = identity.as_ref().map_or((0, 0), |id| (id.dev, id.ino));
        let flag = |prot: Prot, shown: char| if vma.prot.contains(prot) { shown } else { '-' };
        let mut line = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            vma.start,
            vma.end,
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
            if vma.is_shared() { 's' } else { 'p' },
            offset,
            dev_major(dev),
            dev_minor(dev),
            ino
        );
        let name = identity.map_or_else(|| self.name(vma).as_bytes().to_vec(), |id| id.name);
        while !name.is_empty() && line.len() < NAME_COLUMN {
            line.push(' ');
        }
        out.extend_from_slice(line.as_bytes());
        for byte in name {
            match byte {
                b'\n' => out.extend_from_slice(b"\\012"),
                other => out.push(other),
            }
        }
        out.push(b'\n');
    }

    fn name(&self, vma: &Vma) -> &'static str {
        let (start, end) = self.heap;
        match vma.source {
            Source::Special(name) => name,
            Source::Anonymous if vma.start < end && vma.end > start => "[heap]",
            Source::Anonymous if vma.contains(self.stack) => "[stack]",
            _ => "",
        }
    }
}

/// The lines of `smaps` below the line of `maps`.
fn details(vma: &Vma, resident: u64) -> String {
    let mut text = String::new();
    let anonymous = if vma.is_private_anonymous() { resident } else { 0 };
    let dirty = if vma.prot.contains(Prot::WRITE) { resident } else { 0 };
    let (shared, private) = if vma.is_shared() { (dirty, 0) } else { (0, dirty) };
    let clean = resident - dirty;
    let locked = if vma.flags.contains(VmaFlags::LOCKED) { resident } else { 0 };
    let rows = [
        ("Size:", vma.len()),
        ("KernelPageSize:", PAGE_SIZE),
        ("MMUPageSize:", PAGE_SIZE),
        ("Rss:", resident),
        ("Pss:", resident),
        ("Shared_Clean:", if vma.is_shared() { clean } else { 0 }),
        ("Shared_Dirty:", shared),
        ("Private_Clean:", if vma.is_shared() { 0 } else { clean }),
        ("Private_Dirty:", private),
        ("Referenced:", resident),
        ("Anonymous:", anonymous),
        ("LazyFree:", 0),
        ("AnonHugePages:", 0),
        ("ShmemPmdMapped:", 0),
        ("FilePmdMapped:", 0),
        ("Shared_Hugetlb:", 0),
        ("Private_Hugetlb:", 0),
        ("Swap:", 0),
        ("SwapPss:", 0),
        ("Locked:", locked),
    ];
    for (name, bytes) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<16}{:>8} kB", bytes / 1024);
    }
    text.push_str("THPeligible:           0\nVmFlags:");
    text.push_str(&vm_flags(vma));
    text.push('\n');
    text
}

fn vm_flags(vma: &Vma) -> String {
    let prots = [
        (vma.prot, Prot::READ, "rd"),
        (vma.prot, Prot::WRITE, "wr"),
        (vma.prot, Prot::EXEC, "ex"),
        (vma.max_prot, Prot::READ, "mr"),
        (vma.max_prot, Prot::WRITE, "mw"),
        (vma.max_prot, Prot::EXEC, "me"),
    ];
    let flags = [
        (VmaFlags::SHARED, "sh"),
        (VmaFlags::SHARED, "ms"),
        (VmaFlags::GROWSDOWN, "gd"),
        (VmaFlags::LOCKED, "lo"),
        (VmaFlags::DONTFORK, "dc"),
        (VmaFlags::DONTEXPAND, "de"),
        (VmaFlags::NORESERVE, "nr"),
        (VmaFlags::WIPEONFORK, "wf"),
        (VmaFlags::DONTDUMP, "dd"),
    ];
    let prots = prots.iter().filter(|(have, bit, _)| have.contains(*bit)).map(|row| row.2);
    let flags = flags.iter().filter(|(bit, _)| vma.flags.contains(*bit)).map(|row| row.1);
    prots.chain(flags).fold(String::new(), |text, name| text + " " + name)
}
