//! The action `start`: the shim that serves a container, found or made.
//!
//! A container that joins a sandbox is served by the shim of that, whose address the bundle of the sandbox's first
//! container holds: bundles of a namespace are beside each other. Any other container gets a shim of its own.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use nix::sys::stat::{Mode, umask};

use crate::args::Args;
use crate::oci_parts;

/// Directory of the sockets of all shims, where containerd has it.
const SOCKETS: &str = "/run/containerd/s";
/// In a bundle, the address of its shim.
pub(crate) const ADDRESS: &str = "address";
/// How addresses begin.
pub(crate) const SCHEME: &str = "unix://";

/// Returns the address of the shim for the container.
pub(crate) fn start(args: &Args) -> Result<String> {
    let bundle = crate::bundle(args)?;
    if let Some(address) = of_sandbox(&bundle)? {
        std::fs::write(bundle.join(ADDRESS), &address).context("the shim's address")?;
        return Ok(address);
    }
    let socket = socket_path()?;
    let address = format!("{SCHEME}{}", socket.display());
    // Before there is a socket, so that `delete` finds it in any case.
    std::fs::write(bundle.join(ADDRESS), &address).context("the shim's address")?;
    spawn(args, &bundle, bind(&socket)?)?;
    Ok(address)
}

/// The address of the shim of the sandbox that the container joins, when that one lives.
fn of_sandbox(bundle: &Path) -> Result<Option<String>> {
    let Some(sandbox) = oci_parts::sandbox(bundle)? else { return Ok(None) };
    let Some(bundles) = bundle.parent() else { return Ok(None) };
    Ok(listening(&bundles.join(sandbox)))
}

/// The address in a bundle, when somebody listens there.
pub(crate) fn listening(bundle: &Path) -> Option<String> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    UnixStream::connect(address.strip_prefix(SCHEME)?).ok().map(|_| address)
}

/// A path that no other shim has or has had.
fn socket_path() -> Result<PathBuf> {
    std::fs::create_dir_all(SOCKETS).context(SOCKETS)?;
    let mut random = [0; 16];
    let mut source = OpenOptions::new().read(true).open("/dev/urandom").context("/dev/urandom")?;
    source.read_exact(&mut random).context("/dev/urandom")?;
    Ok(Path::new(SOCKETS).join(format!("{:032x}", u128::from_ne_bytes(random))))
}

/// Listens at a path, for root alone.
fn bind(path: &Path) -> Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path).with_context(|| format!("{path:?}"));
    umask(before);
    listener
}

/// Starts the shim, which finds its socket as its standard input.
fn spawn(args: &Args, bundle: &Path, listener: UnixListener) -> Result<()> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(&program);
    command.args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address]);
    if args.debug {
        command.arg("-debug");
    }
    command.arg("serve").current_dir(bundle).process_group(0);
    // containerd waits until nobody has its pipes open any more.
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().with_context(|| format!("{program:?}"))?;
    spare(child.id());
    std::fs::write(bundle.join("shim.pid"), child.id().to_string()).context("the shim's pid")
}

/// Has the shim not be chosen before containers when the host runs out of memory, but before containerd.
fn spare(pid: u32) {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let score = own.trim().parse::<i32>().unwrap_or(0).saturating_add(1).min(1000);
    // It is no worse off than any other process then.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
}

/// What this runtime is, for containerd.
pub(crate) fn info() -> Result<Vec<u8>> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let info = RuntimeInfo {
        name: "io.containerd.runsc.v1".into(),
        version: MessageField::some(version),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes().context("what this runtime is")
}
