//! From an OCI bundle to what a sandbox is started with.

use std::path::Path;
use std::str::FromStr;

use oci::{Bundle, Spec};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount as SpecMount, Process as SpecProcess};
use sentry::{
    BootConfig, Device, DeviceKind, InheritedFds, Mount, Overlay, Process, Resources, Rlimit, Source,
};

use crate::{Attachment, SandboxError, Submounts};

/// Longest host name in bytes (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

/// What the command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Platform by name.
    pub platform: String,
    /// Whether hot calls may be looked for by a thread that waits in a loop.
    pub fast_path: bool,
    /// Where writes to the root go.
    pub overlay: Overlay,
    /// Options of the file system that takes them, such as `size=1g`.
    pub overlay_options: Vec<String>,
    /// Whether the seccomp profile of the spec counts.
    pub seccomp: bool,
    /// Others may change the root.
    pub shared_root: bool,
    /// Others may change what is mounted from the host.
    pub shared_mounts: bool,
    /// Its processes may have raw and packet sockets.
    pub net_raw: bool,
    /// Log in detail.
    pub debug: bool,
    /// Log every system call of the guest.
    pub strace: bool,
}

/// The configuration of a Sentry for `bundle`, without descriptors, and what its Gofer serves.
pub fn boot_config(
    id: &str,
    bundle: &Bundle,
    settings: &Settings,
) -> Result<(BootConfig, Vec<Attachment>), SandboxError> {
    let spec = &bundle.spec;
    let readonly = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or_default();
    // Places for mounts are made on a read-only root too, which others may be using as well: in memory.
    let overlay = if readonly { Overlay::Memory } else { settings.overlay };
    let root = Mount {
        target: "/".into(),
        source: Source::Gofer(0),
        readonly,
        shared: settings.shared_root,
        overlay,
        name: None,
        options: settings.overlay_options.clone(),
    };
    let root_attachment = Attachment {
        path: bundle.rootfs.clone(),
        readonly: overlay == Overlay::Memory,
        submounts: Submounts::Copied,
    };
    let (mut mounts, mut attachments) = (vec![root], vec![root_attachment]);
    for mount in spec.mounts().iter().flatten() {
        mounts.push(translate(mount, &bundle.dir, settings.shared_mounts, &mut attachments)?);
    }
    let linux = spec.linux().as_ref();
    let process =
        spec.process().as_ref().ok_or(SandboxError::Spec { field: "process", reason: "missing" })?;
    let config = BootConfig {
        container_id: id.into(),
        hostname: hostname(spec, id),
        platform: settings.platform.clone(),
        // Looking for calls takes processor time, of which such a container has none to spare.
        fast_path: settings.fast_path && !has_cpu_quota(spec),
        mounts,
        devices: devices(spec)?,
        // Engines rely on it for images whose working directory is not there.
        made: vec![text(process.cwd(), "process.cwd")?],
        masked_paths: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        sysctls: linux.and_then(|linux| linux.sysctl().clone()).into_iter().flatten().collect(),
        seccomp: if settings.seccomp { seccomp(spec)? } else { Vec::new() },
        process: self::process(process)?,
        resources: resources(spec),
        net_raw: settings.net_raw,
        debug: settings.debug,
        strace: settings.strace,
        fds: InheritedFds::default(),
    };
    Ok((config, attachments))
}

/// The nodes that the spec wants. A mode that is not given is for all, as for runc.
fn devices(spec: &Spec) -> Result<Vec<Device>, SandboxError> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let number = |number: i64| {
        let reason = "no device has such a number";
        u32::try_from(number).map_err(|_| SandboxError::Spec { field: "linux.devices", reason })
    };
    let device = |device: &LinuxDevice| {
        Ok(Device {
            path: text(device.path(), "linux.devices.path")?,
            kind: match device.typ() {
                LinuxDeviceType::B => DeviceKind::Block,
                LinuxDeviceType::P => DeviceKind::Fifo,
                _ => DeviceKind::Char,
            },
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    };
    wanted.into_iter().flatten().map(device).collect()
}

/// The filter of the spec's profile, as a Sentry is told it.
fn seccomp(spec: &Spec) -> Result<Vec<u64>, SandboxError> {
    let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(Vec::new());
    };
    Ok(oci::seccomp::filter(profile)?.insns().iter().map(|insn| insn.to_word()).collect())
}

fn has_cpu_quota(spec: &Spec) -> bool {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    wanted.and_then(|wanted| wanted.cpu().as_ref()).and_then(|cpu| cpu.quota()).is_some_and(|quota| quota > 0)
}

fn paths(list: Option<&Vec<String>>) -> Vec<String> {
    list.into_iter().flatten().filter(|path| path.starts_with('/')).cloned().collect()
}

/// The limits that the guest's kernel keeps, or has to tell of.
fn resources(spec: &Spec) -> Resources {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let tasks = wanted.and_then(|wanted| wanted.pids().as_ref()).map(|pids| pids.limit());
    let memory = wanted.and_then(|wanted| wanted.memory().as_ref()).and_then(|memory| memory.limit());
    Resources {
        // Neither zero nor less is a limit.
        tasks: tasks.filter(|tasks| *tasks > 0).map(|tasks| u32::try_from(tasks).unwrap_or(u32::MAX)),
        memory: memory.and_then(|memory| u64::try_from(memory).ok()).filter(|memory| *memory > 0),
    }
}

/// Without one in the spec the container still has a UTS namespace of its own, so the id is as good as any.
fn hostname(spec: &Spec, id: &str) -> String {
    let given = spec.hostname().clone().filter(|name| !name.is_empty());
    given.unwrap_or_else(|| id.chars().take(MAX_HOSTNAME).collect())
}

fn text(path: &Path, field: &'static str) -> Result<String, SandboxError> {
    let text = path.to_str().ok_or(SandboxError::Spec { field, reason: "not UTF-8" })?;
    Ok(text.into())
}

/// Options that say how a mount hangs in the tree, which the guest's tree does not need to know.
const PLACEMENT: [&str; 13] = [
    "bind",
    "rbind",
    "ro",
    "rw",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "defaults",
    "rro",
    "rrw",
];

fn translate(
    mount: &SpecMount,
    bundle: &Path,
    shared: bool,
    attachments: &mut Vec<Attachment>,
) -> Result<Mount, SandboxError> {
    let options = mount.options().clone().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    let readonly = has("ro") || has("rro");
    let kind = mount.typ().as_deref().unwrap_or("bind");
    let source = if has("bind") || has("rbind") || matches!(kind, "bind" | "none") {
        let path = mount.source().as_deref();
        let path = path.ok_or(SandboxError::Spec { field: "mounts.source", reason: "missing" })?;
        let submounts = if has("rbind") { Submounts::Copied } else { Submounts::LeftOut };
        attachments.push(Attachment { path: bundle.join(path), readonly, submounts });
        let index = u32::try_from(attachments.len() - 1);
        Source::Gofer(index.map_err(|_| SandboxError::Spec { field: "mounts", reason: "too many" })?)
    } else {
        Source::Kernel(kind.into())
    };
    // What is mounted from the host is not called by its place there.
    let name =
        mount.source().as_deref().and_then(Path::to_str).filter(|_| matches!(source, Source::Kernel(_)));
    let name = name.map(str::to_owned);
    let options = options.into_iter().filter(|option| !PLACEMENT.contains(&option.as_str())).collect();
    let target = text(mount.destination(), "mounts.destination")?;
    Ok(Mount { target, source, readonly, shared, overlay: Overlay::None, name, options })
}

/// A process of a spec: the container's first, or one for `exec`.
pub fn process(process: &SpecProcess) -> Result<Process, SandboxError> {
    let user = process.user();
    let sets = process.capabilities().as_ref();
    let bits = |set: Option<&std::collections::HashSet<oci_spec::runtime::Capability>>| {
        set.into_iter().flatten().map(|name| bit(&name.to_string())).fold(0, |all, bit| all | bit)
    };
    let rlimits = process.rlimits().iter().flatten().map(|limit| Rlimit {
        // Declared in the order of their numbers, which a test holds on to.
        resource: limit.typ() as u32,
        soft: limit.soft(),
        hard: limit.hard(),
    });
    Ok(Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: text(process.cwd(), "process.cwd")?,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        capabilities: bits(sets.and_then(|sets| sets.bounding().as_ref())),
        inheritable: bits(sets.and_then(|sets| sets.inheritable().as_ref())),
        ambient: bits(sets.and_then(|sets| sets.ambient().as_ref())),
        umask: user.umask().and_then(|umask| u16::try_from(umask & 0o777).ok()).unwrap_or(0o022),
        rlimits: rlimits.collect(),
        terminal: process.terminal().unwrap_or_default(),
        oom_score_adj: process.oom_score_adj(),
        no_new_privs: process.no_new_privileges().unwrap_or_default(),
    })
}

/// The bit of a capability by its name, with or without `CAP_`; none when we do not know it.
pub fn bit(name: &str) -> u64 {
    let name = name.to_ascii_uppercase();
    let full = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    caps::Capability::from_str(&full).map_or(0, |capability| 1 << capability.index())
}

#[cfg(test)]
mod tests {
    use super::{Settings, bit, boot_config};
    use crate::Submounts;
    use sentry::{Overlay, Source};
    use serde_json::{Value, json};

    fn boot(
        overlay: Overlay,
        change: impl FnOnce(&mut Value),
    ) -> (sentry::BootConfig, Vec<crate::Attachment>) {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(dir.path().join("rootfs")).expect("mkdir");
        let mut spec = oci::template();
        change(&mut spec);
        std::fs::write(dir.path().join(oci::CONFIG), spec.to_string()).expect("write");
        let bundle = oci::load(dir.path()).expect("good");
        let settings = Settings {
            platform: "systrap".into(),
            fast_path: true,
            overlay,
            overlay_options: Vec::new(),
            seccomp: false,
            shared_root: false,
            shared_mounts: true,
            debug: false,
            net_raw: false,
            strace: false,
        };
        boot_config("one", &bundle, &settings).expect("good")
    }

    #[test]
    fn binds_are_attachments_and_the_rest_is_the_kernels() {
        let (config, attachments) = boot(Overlay::Memory, |spec| {
            spec["root"]["readonly"] = json!(false);
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.push(json!({ "destination": "/data", "type": "bind", "source": "data",
                                "options": ["rbind", "ro", "nosuid"] }));
            mounts.push(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs",
                                "options": ["rw", "size=64k", "rprivate"] }));
        });
        assert!(attachments[0].readonly && !config.mounts[0].readonly);
        assert_eq!(attachments.len(), 2);
        assert!(attachments[1].readonly && attachments[1].path.ends_with("data"));
        assert_eq!(attachments[1].submounts, Submounts::Copied);
        let data = &config.mounts[4];
        assert_eq!((&data.source, data.readonly), (&Source::Gofer(1), true));
        assert_eq!(data.options, ["nosuid"]);
        assert_eq!(config.mounts[5].options, ["size=64k"]);
        assert_eq!(config.mounts[1].source, Source::Kernel("proc".into()));
    }

    #[test]
    fn processes_keep_their_meaning() {
        let (config, attachments) = boot(Overlay::None, |spec| {
            let process = &mut spec["process"];
            process["rlimits"] = json!([
                { "type": "RLIMIT_RTTIME", "hard": 2, "soft": 1 },
                { "type": "RLIMIT_NOFILE", "hard": 4, "soft": 3 },
            ]);
            process["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
            spec["linux"]["resources"] = json!({ "pids": { "limit": 7 }, "memory": { "limit": -1 } });
        });
        let process = config.process;
        assert_eq!((process.uid, process.gid, process.groups.as_slice()), (5, 6, [7].as_slice()));
        let limits: Vec<_> = process.rlimits.iter().map(|l| (l.resource, l.soft, l.hard)).collect();
        assert_eq!(limits, [(15, 1, 2), (7, 3, 4)]);
        assert_eq!(process.capabilities, 1 << 29 | 1 << 5 | 1 << 10);
        assert!(process.no_new_privs && attachments[0].readonly);
        assert_eq!((config.resources.tasks, config.resources.memory), (Some(7), None));
        assert_eq!(config.hostname, "runsc");
        assert_eq!((bit("CAP_CHOWN"), bit("sys_admin"), bit("CAP_NOPE")), (1, 1 << 21, 0));
    }
}
