//! The guest's tree of mounts, from a [`BootConfig`](crate::BootConfig).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::fs::{FileType, Permissions};
use abi::time::Timespec;
use cred::Credentials;
use devfs::job::JobControl;
use devfs::{Devpts, Drivers, Randomness, Tty};
use goferfs::{Client, GoferFs, MountOptions, SocketTransport, Transport};
use kernel::{Kernel, PidNamespace};
use kernfs::{FsInfo, KernFs, Spec, StaticDir};
use overlayfs::{Layers, OverlayFs};
use procfs::view::{KernelView, Machine};
use procfs::{CpuModel, ProcConfig};
use socket::inet::{Network, show};
use sysfs::SysConfig;
use tmpfs::{Options, TmpFs};
use vfs::{
    Caller, FileContext, FileSystem, FsContext, Mount, MountFlags, MountNamespace, VfsPath, WalkFlags,
    WalkStart,
};

use crate::BootError;
use crate::boot::{BootConfig, Mount as MountConfig, Overlay, Source};
use crate::dev::{self, Ptmx};
use crate::files::Files;
use crate::memory::HostMemory;
use crate::sysctl;

/// What the mounts of all containers are made from.
pub(crate) struct Materials {
    /// The kernel `/proc` shows.
    pub(crate) kernel: Arc<Kernel>,
    /// Sessions and groups, for terminals.
    pub(crate) jobs: Arc<dyn JobControl>,
    /// The terminals there are.
    pub(crate) devpts: Arc<Devpts>,
    /// Random bytes for `/dev`.
    pub(crate) random: Arc<dyn Randomness>,
    /// The processors' model.
    pub(crate) cpu: CpuModel,
    /// Processors.
    pub(crate) cpus: u32,
    /// Bytes of memory the guest is told of.
    pub(crate) memory: u64,
    /// The host holds the sandbox to them.
    pub(crate) memory_limited: bool,
    /// Now.
    pub(crate) now: Timespec,
    /// The network, for `/proc/net`.
    pub(crate) network: Arc<Network>,
    /// Device numbers given out.
    pub(crate) devices: AtomicU32,
}

/// What those of one container are made from beside them.
pub(crate) struct Own {
    /// Connections to its Gofer.
    pub(crate) gofer: Arc<Client>,
    /// `/dev/console`, when the container has a terminal.
    pub(crate) console: Option<Arc<Tty>>,
    /// Whom its `/proc` shows.
    pub(crate) pid_ns: Arc<PidNamespace>,
}

/// Builds the tree and returns it with the context of the first process.
pub(crate) fn build(
    config: &BootConfig,
    materials: &Materials,
    own: &Own,
) -> Result<(Arc<MountNamespace>, FsContext), BootError> {
    let mut mounts = config.mounts.iter();
    let root = mounts.next().filter(|root| root.target == "/").ok_or(BootError::NoRoot)?;
    let builder = Builder { materials, own };
    let fs = builder.overlaid(root)?;
    // Read-only once everything has its place.
    let root_mount = Mount::new(fs, "root", flags(root) - MountFlags::RDONLY);
    let namespace = MountNamespace::new(Arc::clone(&root_mount));
    let context = FsContext::new(&namespace);
    for mount in mounts {
        let fail = |errno| BootError::Mount { target: mount.target.clone(), errno };
        let fs = builder.overlaid(mount)?;
        let kind = fs.root().attr().map_err(fail)?.kind;
        let at = place(&context, mount.target.as_bytes(), kind).map_err(fail)?;
        let name = mount.name.as_deref().unwrap_or(fs.type_name());
        namespace.attach(Mount::new(Arc::clone(&fs), name, flags(mount)), &at).map_err(fail)?;
        if let Some(ptmx) = ptmx(mount) {
            dev::fill((&namespace, &context), &builder, ptmx, &config.devices).map_err(BootError::Devices)?;
        }
    }
    for path in &config.made {
        // Whoever goes there says so when it cannot be made.
        if let Err(errno) = place(&context, path.as_bytes(), FileType::Directory) {
            tracing::warn!(path, %errno, "a directory is not made");
        }
    }
    crate::paths::apply(config, &namespace, &context)?;
    root_mount.set_flags(flags(root));
    Ok((namespace, context))
}

/// What `/dev/ptmx` is when `mount` is a `/dev` to be filled: engines mount a tmpfs there, and leave it to runtimes.
fn ptmx(mount: &MountConfig) -> Option<Ptmx> {
    match &mount.source {
        Source::Kernel(name) if mount.target == "/dev" && name == "tmpfs" => Some(Ptmx::Link),
        Source::Kernel(name) if name == "devtmpfs" => Some(Ptmx::Node),
        _ => None,
    }
}

fn flags(mount: &MountConfig) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, mount.readonly);
    for option in &mount.options {
        match option.as_str() {
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            _ => {}
        }
    }
    flags
}

/// Where something of `kind` is to be mounted: what is there, or else made for it, as runtimes do.
pub(crate) fn place(context: &FsContext, target: &[u8], kind: FileType) -> vfs::Result<VfsPath> {
    let cred = Credentials::root();
    let start = WalkStart { root: &context.root, at: &context.root };
    match vfs::walk(start, target, WalkFlags::FOLLOW, &cred) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let caller = Caller::new(context, FileContext { cred: &cred, pid: 1, tid: 1 });
    let ends = target.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for parent in ends.filter_map(|end| target.get(..end)) {
        match caller.mkdir(parent, 0o755) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match kind {
        FileType::Directory => caller.mkdir(target, 0o755),
        _ => caller.mknod(target, FileType::Regular, 0o644, 0),
    }
}

/// Makes file systems, each with a device number of its own.
pub(crate) struct Builder<'a> {
    materials: &'a Materials,
    pub(crate) own: &'a Own,
}

impl Builder<'_> {
    /// What is mounted, under a tmpfs that takes the writes when the configuration says so.
    fn overlaid(&self, mount: &MountConfig) -> Result<Arc<dyn FileSystem>, BootError> {
        let lower = self.file_system(mount)?;
        if mount.overlay == Overlay::None {
            return Ok(lower);
        }
        let fail = |errno| BootError::Mount { target: mount.target.clone(), errno };
        let mut options = tmpfs_options(self.materials.device(), &mount.options);
        if !has_size(&mount.options) {
            // What is written stays in memory: that is the limit.
            let room = self.materials.room_of_a_tmpfs().unwrap_or(options.size.max(self.materials.memory));
            options.size = room;
            options.inodes = options.inodes.max(room / abi::PAGE_SIZE);
        }
        let upper = TmpFs::new(options, Arc::new(HostMemory));
        let layers = Layers::over(upper.as_ref(), vec![lower.root()]).map_err(fail)?;
        Ok(OverlayFs::new(self.materials.device(), layers).map_err(fail)?)
    }

    fn file_system(&self, mount: &MountConfig) -> Result<Arc<dyn FileSystem>, BootError> {
        let fail = |errno| BootError::Mount { target: mount.target.clone(), errno };
        match &mount.source {
            Source::Gofer(attachment) => {
                let dev = self.materials.device();
                let options = MountOptions { attachment: *attachment, dev, exclusive: !mount.shared };
                let fs = GoferFs::mount(Arc::clone(&self.own.gofer), options).map_err(fail)?;
                Ok(fs)
            }
            Source::Kernel(name) => self.pseudo(name, mount).map_err(fail),
        }
    }

    fn pseudo(&self, name: &str, mount: &MountConfig) -> vfs::Result<Arc<dyn FileSystem>> {
        Ok(match name {
            "proc" => self.materials.proc(&self.own.pid_ns)?,
            "sysfs" => self.materials.sys(),
            "devpts" => self.materials.devpts(),
            "devtmpfs" => self.materials.tmpfs("devtmpfs", &with_mode(&mount.options, "mode=755")),
            "tmpfs" => self.materials.tmpfs("tmpfs", &mount.options),
            "mqueue" => self.materials.tmpfs("mqueue", &mount.options),
            "cgroup" => self.materials.tmpfs("cgroup", &mount.options),
            "cgroup2" => self.materials.tmpfs("cgroup2", &mount.options),
            _ => return Err(Errno::ENODEV),
        })
    }

    /// What is told of a file system that holds one pseudo-file.
    pub(crate) fn pseudo_info(&self) -> FsInfo {
        FsInfo {
            type_name: "devpts",
            magic: i64::from(abi::raw::general::TMPFS_MAGIC),
            dev: self.materials.device(),
            now: self.materials.now,
            stable: true,
        }
    }
}

impl Materials {
    fn device(&self) -> u64 {
        abi::fs::make_dev(0, 16 + self.devices.fetch_add(1, Ordering::Relaxed))
    }

    /// A tmpfs with the options of `mount(2)`, or what is one but for its name.
    pub(crate) fn tmpfs(&self, type_name: &'static str, options: &[String]) -> Arc<dyn FileSystem> {
        let mut wanted = Options { type_name, ..tmpfs_options(self.device(), options) };
        if let Some(room) = self.room_of_a_tmpfs().filter(|_| !has_size(options)) {
            wanted.size = wanted.size.min(room);
        }
        TmpFs::new(wanted, Arc::new(HostMemory))
    }

    /// What one without a size may take, when the host holds the sandbox to its memory: half, as Linux gives of a
    /// machine's. With all of it a guest that fills one would be ended instead of told that it is full.
    fn room_of_a_tmpfs(&self) -> Option<u64> {
        self.memory_limited.then_some(self.memory / 2)
    }

    /// The terminals once more: there is one set of them.
    pub(crate) fn devpts(&self) -> Arc<dyn FileSystem> {
        self.devpts.mount(self.device(), self.now)
    }

    /// What is behind nodes of devices.
    pub(crate) fn drivers(&self) -> Drivers {
        Drivers::new(Arc::clone(&self.random), Arc::clone(&self.jobs), Arc::clone(&self.devpts))
    }

    /// A `/sys`.
    pub(crate) fn sys(&self) -> Arc<dyn FileSystem> {
        let interfaces = Arc::new(Vec::new);
        sysfs::mount(self.device(), self.now, &SysConfig { cpus: self.cpus, memory: self.memory, interfaces })
    }

    /// A `/proc` as it is seen from `pid_ns`.
    pub(crate) fn proc(&self, pid_ns: &Arc<PidNamespace>) -> vfs::Result<Arc<KernFs>> {
        let machine = Machine {
            cpus: self.cpus,
            memory: self.memory,
            boot_time: self.now.sec,
            hostname: self.kernel.uts().hostname(),
        };
        let view = KernelView::new(Arc::clone(&self.kernel), Arc::clone(pid_ns), Arc::new(Files), machine);
        let config = ProcConfig {
            processes: Arc::new(view),
            net: Some(net(&self.network)),
            release: syscalls::RELEASE.to_owned(),
            version: "#1 SMP".to_owned(),
            filesystems: vec!["proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "overlay"],
            cpu: self.cpu.clone(),
            boot_id: self.boot_id()?,
            min_address: self.kernel.platform().features().min_address,
            settings: sysctl::settings(&self.kernel, &self.network),
        };
        Ok(procfs::mount(self.device(), self.now, config))
    }

    /// A random UUID (RFC 9562, version 4).
    fn boot_id(&self) -> vfs::Result<String> {
        let mut bytes = [0u8; 16];
        self.random.fill(&mut bytes)?;
        let value = u128::from_be_bytes(bytes);
        let value = (value & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{value:032x}");
        let (a, rest) = hex.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        Ok(format!("{a}-{b}-{c}-{d}-{e}"))
    }
}

/// `/proc/net`.
fn net(network: &Arc<Network>) -> Spec {
    let files = show::FILES.iter().fold(StaticDir::new(), |dir, name| {
        let network = Arc::clone(network);
        let text = move |_: &FileContext<'_>| show::text(&network, name).ok_or(Errno::ENOENT);
        dir.with(*name, Spec::text(0o444, text))
    });
    files.spec()
}

/// `size=`, `mode=`, `uid=`, `gid=` and `nr_inodes=` of a tmpfs (`tmpfs(5)`).
pub(crate) fn tmpfs_options(dev: u64, given: &[String]) -> Options {
    let mut options = Options::new(dev);
    for (key, value) in given.iter().filter_map(|option| option.split_once('=')) {
        match key {
            "size" => options.size = bytes(value).unwrap_or(options.size),
            "nr_inodes" => options.inodes = bytes(value).unwrap_or(options.inodes),
            "mode" => {
                let mode = u16::from_str_radix(value, 8).unwrap_or(0o1777);
                options.mode = Permissions::from_bits_truncate(mode);
            }
            "uid" => options.uid = value.parse().unwrap_or(0),
            "gid" => options.gid = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    options
}

/// Options with this one, unless they have such a one.
fn with_mode(given: &[String], mode: &str) -> Vec<String> {
    [mode.to_owned()].into_iter().chain(given.iter().cloned()).collect()
}

/// Do options of a tmpfs say how large it may be?
fn has_size(options: &[String]) -> bool {
    options.iter().any(|option| option.starts_with("size="))
}

/// A number with an optional `k`, `m` or `g`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The client over the connections a Sentry inherits.
pub(crate) fn gofer_client(sockets: Vec<OwnedFd>) -> Result<Arc<Client>, Errno> {
    let boxed =
        sockets.into_iter().map(|socket| Box::new(SocketTransport::new(socket)) as Box<dyn Transport>);
    Client::new(boxed.collect())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(bytes("64k"), Some(65_536));
        assert_eq!(bytes("12"), Some(12));
        assert_eq!(bytes("2G"), Some(2 << 30));
        assert_eq!(bytes("50%"), None);
        assert_eq!(bytes("99999999999999999999g"), None);
    }
}
