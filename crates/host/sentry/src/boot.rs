//! What a Sentry is started with, and the entry that starts it.
//!
//! [`BootConfig`] is the contract between the `sandbox` crate (outside) and this one. It holds only
//! plain data and descriptor numbers, so that it can cross an `execve(2)`.

use std::collections::BTreeMap;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use abi::Errno;
pub use control::{ExitStatus, Process, Rlimit};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Everything a Sentry needs to boot a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Container id, as given to `runsc create`.
    pub container_id: String,
    /// Host name in the guest's UTS namespace.
    pub hostname: String,
    /// Name of the platform, such as `systrap`; `auto` for the first that works.
    pub platform: String,
    /// Whether guests' hot calls may take the fast path of the platform, when it has one.
    pub fast_path: bool,
    /// Mounts in order. The first one is the root, its target `/`.
    pub mounts: Vec<Mount>,
    /// Nodes of devices beside those that every container has, when `/dev` is the Sentry's to fill.
    pub devices: Vec<Device>,
    /// Directories that are made when they are missing.
    pub made: Vec<String>,
    /// What is hidden: a directory under an empty one, a file under `/dev/null`. Missing ones are passed over.
    pub masked_paths: Vec<String>,
    /// What cannot be written to. Missing ones are passed over.
    pub readonly_paths: Vec<String>,
    /// Values below `/proc/sys`, by name with dots.
    pub sysctls: BTreeMap<String, String>,
    /// Filter of system calls that its processes have from the start, an instruction each
    /// ([`bpf::Insn::to_word`]); none when empty.
    pub seccomp: Vec<u64>,
    /// First process.
    pub process: Process,
    /// What its processes may use together.
    pub resources: Resources,
    /// Its processes may have raw and packet sockets, with `CAP_NET_RAW`.
    pub net_raw: bool,
    /// Log in detail.
    pub debug: bool,
    /// Log every system call of the guest.
    pub strace: bool,
    /// Descriptors open in the Sentry when it starts.
    pub fds: InheritedFds,
}

/// What a container may use, as far as the Sentry sees to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Most tasks at a time; without one as many as there can be.
    pub tasks: Option<u32>,
    /// Bytes of memory that the guest is told of; without them the host's. The host holds it to them.
    pub memory: Option<u64>,
}

/// Where writes to a mount go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlay {
    /// Into what is mounted.
    None,
    /// Into memory, lost at exit.
    Memory,
}

/// One mount of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the guest.
    pub target: String,
    /// What is mounted.
    pub source: Source,
    /// Writes fail with `EROFS`.
    pub readonly: bool,
    /// Others outside may change what is there: nothing is remembered of it.
    pub shared: bool,
    /// What lies over it, which must be a directory then.
    pub overlay: Overlay,
    /// What it is called in `/proc/mounts`; by its type without a name.
    pub name: Option<String>,
    /// Options for the file system that takes the writes, and that are not flags of the mount, such as `size=64k`.
    pub options: Vec<String>,
}

/// A node of a device (`mknod(2)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path in the guest.
    pub path: String,
    /// What kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a node of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An attachment of the Gofer, by its index in `gofer::Config::attachments`.
    Gofer(u32),
    /// A file system of the Sentry's own, by name: `proc`, `sysfs`, `tmpfs`, `devtmpfs`, `devpts`,
    /// `mqueue` or `cgroup`.
    Kernel(String),
}

/// Numbers of the descriptors that a Sentry inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedFds {
    /// Listening control socket; `None` when nobody is to control the sandbox.
    pub control: Option<RawFd>,
    /// Connections to the Gofer, `SOCK_SEQPACKET`. They share the Gofer's nodes.
    pub gofer: Vec<RawFd>,
    /// Standard input, output and error of the guest, and those it has after them.
    pub stdio: Vec<RawFd>,
    /// The device that the platform works with ([`platforms::device`](crate::platforms::device)).
    pub device: Option<RawFd>,
}

/// Why a Sentry does not start.
#[derive(Debug, Error)]
pub enum BootError {
    /// There is no such platform.
    #[error("platform {0:?} is unknown")]
    NoPlatform(String),
    /// The device of the platform cannot be opened.
    #[error("platform {platform} cannot work here: {}: {source}", path.display())]
    Device {
        /// Which platform.
        platform: String,
        /// Where the device should be.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// A device is given to a platform that has no use for one.
    #[error("platform {0} works with no device, but one is given")]
    DeviceUnused(String),
    /// No platform works here; why each does not.
    #[error("no platform works here: {0}")]
    NoneWorks(String),
    /// The platform does not work here, or failed.
    #[error(transparent)]
    Platform(#[from] platform::PlatformError),
    /// The first mount is not the root.
    #[error("no mount at /")]
    NoRoot,
    /// A mount failed.
    #[error("mounting {target:?}: {errno}")]
    Mount {
        /// Path in the guest.
        target: String,
        /// Why.
        errno: Errno,
    },
    /// A node of a device cannot be made.
    #[error("filling /dev: {0}")]
    Devices(Errno),
    /// There is no working connection to the Gofer.
    #[error("connecting to the gofer: {0}")]
    Gofer(Errno),
    /// A value below `/proc/sys` cannot be set.
    #[error("sysctl {name:?}: {errno}")]
    Sysctl {
        /// Which.
        name: String,
        /// Why.
        errno: Errno,
    },
    /// The filter of the spec is none.
    #[error("seccomp profile: {0}")]
    Profile(#[from] bpf::ProgramError),
    /// The working directory cannot be entered.
    #[error("working directory {path:?}: {}", in_words(*.errno, "/"))]
    Directory {
        /// Which.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// The program cannot be run.
    #[error("exec: {name:?}: {}", in_words(*.errno, name))]
    Program {
        /// As it was given.
        name: String,
        /// Why.
        errno: Errno,
    },
    /// The host name is too long.
    #[error("host name {name:?}: {errno}")]
    Hostname {
        /// Which.
        name: String,
        /// Why.
        errno: Errno,
    },
    /// A resource limit has an unknown number.
    #[error("resource limit {0} is unknown")]
    Rlimit(u32),
    /// The first process could not be started.
    #[error("starting the first process: {0}")]
    Start(Errno),
    /// Nobody could control the sandbox.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// The Sentry could not lock itself in.
    #[error("locking the sentry in: {0}")]
    LockIn(#[from] hostsys::seccomp::SeccompError),
    /// A host call failed.
    #[error("{doing}: {source}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
}

/// In the words that engines look for to choose their own exit code.
fn in_words(errno: Errno, name: &str) -> String {
    match errno {
        Errno::ENOENT if !name.contains('/') => "executable file not found in $PATH".into(),
        Errno::ENOENT => "no such file or directory".into(),
        Errno::EACCES => "permission denied".into(),
        Errno::ENOTDIR => "not a directory".into(),
        Errno::ENOEXEC => "exec format error".into(),
        other => other.to_string(),
    }
}

/// Whether a Sentry gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Before the first guest runs, [`seccomp::RULES`](crate::seccomp::RULES) and the platform's become
    /// all that this process may ask of the host.
    LockedIn,
    /// Nothing is given up. For tests only.
    None,
}

/// The descriptors of [`InheritedFds`], owned.
#[derive(Debug)]
pub struct Inherited {
    /// Connections to the Gofer.
    pub gofer: Vec<OwnedFd>,
    /// Standard input, output and error of the guest, and those it has after them.
    pub stdio: Vec<OwnedFd>,
    /// Listening control socket.
    pub control: Option<OwnedFd>,
    /// The device that the platform works with.
    pub device: Option<OwnedFd>,
}
