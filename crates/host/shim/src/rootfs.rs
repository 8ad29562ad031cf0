//! The root of a container: the mounts that containerd's snapshotter names.

use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::ShimError;

/// Most bytes of options that the host takes, a page with its NUL.
const MAX_DATA: usize = 4095;
/// More than can be on top of each other.
const MAX_LAYERS: usize = 64;

/// Options that are flags of `mount(2)`: to set, or to clear.
const FLAGS: &[(&str, MsFlags, bool)] = &[
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("bind", MsFlags::MS_BIND, true),
];

/// A mount as the host wants it.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: MsFlags,
    data: Vec<String>,
}

/// Mounts all at `target` of a bundle.
pub(crate) fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), ShimError> {
    if !mounts.is_empty() {
        std::fs::create_dir_all(target).map_err(ShimError::io(target))?;
    }
    for one in mounts {
        if let Err(error) = mount_one(one, &target.join(one.target.trim_start_matches('/'))) {
            unmount(target)?;
            return Err(error);
        }
    }
    Ok(())
}

/// Takes all mounts off `target`. No error when there are none.
pub(crate) fn unmount(target: &Path) -> Result<(), ShimError> {
    for _ in 0..MAX_LAYERS {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(ShimError::host(target)(errno)),
        }
    }
    Ok(())
}

fn parse(one: &Mount) -> Result<Parsed, ShimError> {
    let mut parsed = Parsed { flags: MsFlags::empty(), data: Vec::new() };
    for option in &one.options {
        match (option.as_str(), FLAGS.iter().find(|(name, ..)| name == option)) {
            (_, Some((_, flag, set))) => parsed.flags.set(*flag, *set),
            ("rbind", _) => parsed.flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            ("loop", _) => {
                let what = format!("rootfs of type {:?}", one.type_);
                return Err(ShimError::Invalid {
                    what,
                    reason: "option loop: no loop devices are made".into(),
                });
            }
            ("defaults" | "", _) => {}
            _ => parsed.data.push(option.clone()),
        }
    }
    if one.type_ == "bind" {
        parsed.flags |= MsFlags::MS_BIND;
    }
    Ok(parsed)
}

fn mount_one(one: &Mount, target: &Path) -> Result<(), ShimError> {
    let Parsed { flags, data } = parse(one)?;
    let text = data.join(",");
    if one.type_ == "overlay" && text.len() > MAX_DATA {
        return mount_long(one, flags, &data, target);
    }
    let bind = flags.contains(MsFlags::MS_BIND);
    let first = if bind { flags & (MsFlags::MS_BIND | MsFlags::MS_REC) } else { flags };
    call(one, target, first, &text)?;
    if bind && flags != first {
        // A bind has its flags only when they are changed.
        call(one, target, flags | MsFlags::MS_REMOUNT, "")?;
    }
    Ok(())
}

fn call(one: &Mount, target: &Path, flags: MsFlags, data: &str) -> Result<(), ShimError> {
    let (source, kind) = (one.source.as_str(), one.type_.as_str());
    mount(Some(source), target, Some(kind), flags, Some(data).filter(|data| !data.is_empty())).map_err(
        |errno| {
            let what = format!("rootfs: mount of {source:?} of type {kind:?} at {target:?}");
            ShimError::Invalid { what, reason: errno.to_string() }
        },
    )
}

/// Mounts an overlay of so many layers that their names do not fit: from the directory that all have in common, and
/// with the rest of their names. On a thread of its own, whose working directory is nobody else's.
fn mount_long(one: &Mount, flags: MsFlags, data: &[String], target: &Path) -> Result<(), ShimError> {
    let (base, data) = shorten(data);
    if data.len() > MAX_DATA {
        let what = format!("rootfs: an overlay at {target:?}");
        return Err(ShimError::Invalid { what, reason: "too many layers".into() });
    }
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| nix::unistd::chdir(&base))
                .map_err(ShimError::host(&base))?;
            call(one, target, flags, &data)
        });
        let died = |_| ShimError::Invalid { what: "rootfs".into(), reason: "a thread died".into() };
        there.join().map_err(died).and_then(|result| result)
    })
}

/// The directory that all lower layers are in, and the options with names below it.
fn shorten(data: &[String]) -> (PathBuf, String) {
    let lower = data.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap_or_default();
    let mut base = PathBuf::from(lower.split(':').next().unwrap_or_default());
    while !lower.split(':').all(|layer| Path::new(layer).starts_with(&base)) && base.pop() {}
    // A layer that is the directory itself would have no name.
    if lower.split(':').any(|layer| Path::new(layer) == base) {
        base.pop();
    }
    let short = |layer: &str| {
        let path = Path::new(layer);
        path.strip_prefix(&base).unwrap_or(path).to_string_lossy().into_owned()
    };
    let option = |option: &String| match option.strip_prefix("lowerdir=") {
        Some(layers) => format!("lowerdir={}", layers.split(':').map(short).collect::<Vec<_>>().join(":")),
        None => option.clone(),
    };
    let data = data.iter().map(option).collect::<Vec<_>>().join(",");
    (base, data)
}

#[cfg(test)]
mod tests {
    use super::{Mount, MsFlags, Path, mount_all, parse, shorten};

    fn of(kind: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(ToString::to_string).collect();
        Mount { type_: kind.into(), source: kind.into(), options, ..Mount::default() }
    }

    #[test]
    fn options_are_flags_or_data() {
        let parsed =
            parse(&of("overlay", &["ro", "nosuid", "rw", "lowerdir=/a:/b", "index=off"])).expect("good");
        assert_eq!(
            (parsed.flags, parsed.data.join(",").as_str()),
            (MsFlags::MS_NOSUID, "lowerdir=/a:/b,index=off")
        );
        let parsed = parse(&of("bind", &["rbind", "ro"])).expect("good");
        assert_eq!(parsed.flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert!(parse(&of("ext4", &["loop"])).is_err());
    }

    #[test]
    fn long_names_are_made_short() {
        let options =
            ["index=off", "lowerdir=/s/1/fs:/s/22/fs:/s/3/fs", "upperdir=/s/4/fs"].map(String::from);
        let (base, data) = shorten(&options);
        assert_eq!(
            (base.as_path(), data.as_str()),
            (Path::new("/s"), "index=off,lowerdir=1/fs:22/fs:3/fs,upperdir=/s/4/fs")
        );
        let (base, data) = shorten(&["lowerdir=/a:/a/b".into()]);
        assert_eq!((base.as_path(), data.as_str()), (Path::new("/"), "lowerdir=a:a/b"));
    }

    #[test]
    fn a_mount_that_fails_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let error =
            mount_all(&[of("no-such-type", &[])], &dir.path().join("rootfs")).expect_err("no such type");
        assert!(error.to_string().contains("no-such-type"), "{error}");
    }
}
