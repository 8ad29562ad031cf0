//! `execve(2)` and `execveat(2)`.

use std::cell::RefCell;
use std::sync::Arc;

use abi::fs::{AT_FDCWD, AtFlags, FileType, OpenFlags};
use abi::limits::Resource;
use abi::{Errno, SysResult};
use guestmem::{PageReader, UserAddr, UserCStr};
use kernel::NewProgram;
use loader::{Arguments, Entropy, ExecFile, Ids, LoadError, LoadRequest, MAX_STRING, OpenedFile, Opener};
use mm::MemoryManager;
use platform::Registers;
use vfs::{Access, Attr, Caller, MountFlags, VfsPath, WalkFlags};

use crate::args::Fd;
use crate::at::{At, at_flags};
use crate::cx::Cx;
use crate::privileges;
use crate::process::memory_limits;

/// `personality(2)`: the layout is not random.
const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;

/// `execve(2)`.
pub(crate) fn execve(cx: &mut Cx<'_>, path: UserCStr, argv: UserAddr, envp: UserAddr) -> SysResult<u64> {
    execveat(cx, Fd(AT_FDCWD), path, argv, envp, 0)
}

/// `execveat(2)`.
pub(crate) fn execveat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    argv: UserAddr,
    envp: UserAddr,
    flags: u32,
) -> SysResult<u64> {
    let flags = at_flags(flags, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
    let at = At::new(cx, dirfd, path)?;
    let filename = shown_name(dirfd, &at.path);
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, !flags.contains(AtFlags::SYMLINK_NOFOLLOW));
    walk.set(WalkFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    let programs = Programs { at: &at, cred: cx.task.cred(), last: RefCell::new(None) };
    let file = programs.open_at(at.lookup(walk)?)?;
    let args = arguments(cx, argv, envp)?;
    let program = loader::resolve(file, filename, args, &programs).map_err(Errno::from)?;
    // What runs, behind all scripts: its set-id bits count.
    let (exe, attr) = programs.last.take().ok_or(Errno::ENOEXEC)?;
    let gained = privileges::after_exec(&cx.task.cred(), &exe, &attr);
    let mut ids = Ids::of(&gained.cred);
    ids.secure |= gained.secure;
    let features = cx.task.kernel().platform().features();
    let request = LoadRequest {
        space: cx.task.kernel().platform().new_address_space().map_err(Errno::from)?,
        features: &features,
        shared_memory: Arc::clone(&cx.services.shared_memory),
        limits: memory_limits(cx.task.group(), &gained.cred),
        opener: &programs,
        ids,
        cpu: cx.services.cpu,
        entropy: entropy(cx)?,
    };
    let loaded = loader::load(program, request).map_err(Errno::from)?;
    let registers = Registers::entry(loaded.ip, loaded.sp);
    let program = NewProgram { mm: loaded.mm, registers, name: loaded.command, exe: Some(exe) };
    let result = cx.task.exec(cx.thread, program)?;
    if gained.cred.euid != gained.cred.uid || gained.cred.egid != gained.cred.gid {
        // Its user must not look into it.
        cx.task.group().set_dumpable(false);
        cx.task.set_death_signal(0);
    }
    cx.task.set_cred(Arc::new(gained.cred));
    Ok(result)
}

/// The path a script's interpreter is given, and whose end names the task.
fn shown_name(dirfd: Fd, path: &[u8]) -> Vec<u8> {
    if dirfd.0 == AT_FDCWD || path.first() == Some(&b'/') {
        return path.to_vec();
    }
    let mut name = format!("/dev/fd/{}", dirfd.0).into_bytes();
    if !path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(path);
    }
    name
}

fn entropy(cx: &Cx<'_>) -> SysResult<Entropy> {
    let mut bytes = [0; Entropy::BYTES];
    cx.services.random.fill(&mut bytes)?;
    let entropy = Entropy::new(bytes);
    let fixed = cx.task.settings().personality & ADDR_NO_RANDOMIZE != 0;
    Ok(if fixed { entropy.fixed_layout() } else { entropy })
}

/// Opens programs as the caller, and remembers which was the last.
struct Programs<'a> {
    at: &'a At,
    cred: Arc<cred::Credentials>,
    last: RefCell<Option<(VfsPath, Attr)>>,
}

impl Programs<'_> {
    fn open_at(&self, path: VfsPath) -> Result<Arc<dyn ExecFile>, Errno> {
        let attr = path.inode().attr()?;
        match attr.kind {
            FileType::Regular => {}
            FileType::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::EACCES),
        }
        if path.mount.flags().contains(MountFlags::NOEXEC) {
            return Err(Errno::EACCES);
        }
        let caller: Caller<'_> = self.at.caller();
        vfs::perm::check(&attr, Access::EXECUTE, caller.cx.cred)?;
        let file = path.inode().open(&caller.cx, OpenFlags::empty())?;
        let shown = path.display(&caller.fs.root);
        *self.last.borrow_mut() = Some((path, attr));
        Ok(Arc::new(OpenedFile::new(file, shown, Arc::clone(&self.cred))))
    }
}

impl Opener for Programs<'_> {
    /// Interpreters are found from the working directory, whatever the program was found from.
    fn open(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno> {
        let caller = self.at.caller();
        let found = Caller::new(caller.fs, caller.cx).lookup(path, WalkFlags::FOLLOW)?;
        self.open_at(found)
    }
}

fn arguments(cx: &Cx<'_>, argv: UserAddr, envp: UserAddr) -> SysResult<Arguments> {
    let mm = cx.mm();
    let mut args = Arguments::new(cx.task.group().limit(Resource::Stack).cur);
    load_strings(&mm, argv, |string| args.push_arg(string))?;
    load_strings(&mm, envp, |string| args.push_env(string))?;
    Ok(args)
}

/// Reads an array of strings that ends with a null pointer; a null array is an empty one. It is bounded
/// by what `push` takes.
fn load_strings(
    mm: &MemoryManager,
    array: UserAddr,
    mut push: impl FnMut(Vec<u8>) -> Result<(), LoadError>,
) -> SysResult<()> {
    if array.is_null() {
        return Ok(());
    }
    let (mut pointers, mut strings) = (PageReader::new(mm), PageReader::new(mm));
    let mut at = array;
    loop {
        let pointer = pointers.load_u64(at)?;
        if pointer == 0 {
            return Ok(());
        }
        let string = match strings.load_cstr(UserCStr(UserAddr(pointer)), MAX_STRING) {
            Err(Errno::ENAMETOOLONG) => return Err(Errno::E2BIG.into()),
            string => string?,
        };
        push(string).map_err(Errno::from)?;
        at = at.checked_add(8).ok_or(Errno::EFAULT)?;
    }
}
