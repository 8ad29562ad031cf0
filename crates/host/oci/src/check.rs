//! What of a spec we insist on.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

/// File systems a spec may mount; the rest is refused by name.
pub const MOUNT_TYPES: &[&str] =
    &["bind", "none", "tmpfs", "proc", "sysfs", "devpts", "devtmpfs", "mqueue", "cgroup", "cgroup2"];

/// A field that will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Field, as a path of JSON keys.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

fn problem(field: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem { field: field.into(), reason: reason.into() }
}

/// Checks everything that does not need a look at the file system.
///
/// # Errors
/// The first field that will not do.
pub fn spec(spec: &Spec) -> Result<(), Problem> {
    version(spec.version())?;
    for (field, present) in [
        ("windows", spec.windows().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ] {
        if present {
            return Err(problem(field, "not a spec for Linux"));
        }
    }
    if let Some(process) = spec.process() {
        self::process(process)?;
    }
    mounts(spec)?;
    namespaces(spec)
}

/// `ociVersion`: 1.x, as we know no other major version.
fn version(version: &str) -> Result<(), Problem> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(1) => Ok(()),
        Some(_) => Err(problem("ociVersion", format!("{version:?} is not a version 1 spec"))),
        None => Err(problem("ociVersion", format!("{version:?} is not a semantic version"))),
    }
}

fn process(process: &Process) -> Result<(), Problem> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(problem("process.args", "must name a program"));
    }
    if !process.cwd().is_absolute() {
        return Err(problem("process.cwd", format!("{:?} is not an absolute path", process.cwd())));
    }
    for (at, variable) in process.env().iter().flatten().enumerate() {
        if variable.contains('\0') {
            return Err(problem(format!("process.env[{at}]"), "contains a NUL"));
        }
    }
    for (at, argument) in process.args().iter().flatten().enumerate() {
        if argument.contains('\0') {
            return Err(problem(format!("process.args[{at}]"), "contains a NUL"));
        }
    }
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        if limit.soft() > limit.hard() {
            return Err(problem(format!("process.rlimits[{at}]"), "soft limit above the hard limit"));
        }
    }
    if process.selinux_label().as_ref().is_some_and(|label| !label.is_empty()) {
        return Err(problem("process.selinuxLabel", "SELinux labels are not supported"));
    }
    Ok(())
}

fn mounts(spec: &Spec) -> Result<(), Problem> {
    for (at, mount) in spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{at}]");
        if mount.destination().as_os_str().is_empty() {
            return Err(problem(format!("{field}.destination"), "is empty"));
        }
        let options = mount.options().clone().unwrap_or_default();
        let bind = options.iter().any(|option| option == "bind" || option == "rbind");
        match mount.typ().as_deref() {
            Some(kind) if !bind && !MOUNT_TYPES.contains(&kind) => {
                return Err(problem(format!("{field}.type"), format!("unknown mount type {kind:?}")));
            }
            None | Some("") if !bind => {
                return Err(problem(format!("{field}.type"), "missing, and not a bind mount"));
            }
            _ => {}
        }
        if bind && mount.source().is_none() {
            return Err(problem(format!("{field}.source"), "a bind mount needs a source"));
        }
        if let Some(option) = options.iter().find(|o| *o == "shared" || *o == "rshared") {
            return Err(problem(
                format!("{field}.options"),
                format!("{option:?} propagation is not supported"),
            ));
        }
    }
    Ok(())
}

fn namespaces(spec: &Spec) -> Result<(), Problem> {
    let linux = spec.linux().as_ref();
    let list = linux.and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    for (at, namespace) in list.iter().enumerate() {
        let field = format!("linux.namespaces[{at}]");
        if namespace.typ() == LinuxNamespaceType::Time {
            return Err(problem(format!("{field}.type"), "time namespaces are not supported"));
        }
        if list.iter().take(at).any(|earlier| earlier.typ() == namespace.typ()) {
            return Err(problem(format!("{field}.type"), format!("{} is there twice", namespace.typ())));
        }
        if namespace.path().as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(problem(format!("{field}.path"), "is not an absolute path"));
        }
    }
    Ok(())
}

/// The root file system of the bundle at `bundle`.
///
/// # Errors
/// `root` is missing, or its path names no directory.
pub fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Problem> {
    let root = spec.root().as_ref().ok_or_else(|| problem("root", "missing"))?;
    let path = bundle.join(root.path());
    let refuse = |reason: String| problem("root.path", format!("{}: {reason}", path.display()));
    let resolved = path.canonicalize().map_err(|error| refuse(error.to_string()))?;
    if resolved.is_dir() { Ok(resolved) } else { Err(refuse("not a directory".to_owned())) }
}
