//! The platforms there are, and which of them one gets.
//!
//! This is the only place that names backends. A backend is made while the host is still there to look at, and
//! brings the host calls that it makes later. One that works with a device of the host is handed that open: the
//! Sentry has no files of the host in view.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostproc::HostView;
use hostsys::seccomp::Rule;
use platform::{Platform, PlatformError};
use platform_kvm::Kvm;
use platform_ptrace::Ptrace;
use platform_systrap::Systrap;

use crate::BootError;

/// Which ways guests' calls enter by.
pub(crate) use platform_systrap::Paths;

/// The name that leaves the choice to us.
const AUTO: &str = "auto";

/// What platforms are made of.
#[derive(Debug)]
pub(crate) struct Means {
    /// The host, looked at earlier.
    pub(crate) view: HostView,
    /// Ways for guests' calls to enter, of a platform that has several.
    pub(crate) paths: Paths,
    /// The device of a platform that works with one.
    pub(crate) device: Option<OwnedFd>,
    /// Most bytes of memory of guests, where the platform owns it.
    pub(crate) memory: u64,
}

/// A kind of platform.
struct Kind {
    name: &'static str,
    about: &'static str,
    /// The device that it works with.
    device: Option<&'static str>,
    make: fn(&Means) -> Result<Arc<dyn Platform>, PlatformError>,
    host_calls: &'static [Rule],
}

/// All of them, the best first.
static KINDS: &[Kind] = &[
    Kind {
        name: "systrap",
        about: "seccomp notification; the fastest",
        device: None,
        make: |means| Ok(Arc::new(Systrap::with_paths(means.view.clone(), means.paths)?)),
        host_calls: platform_systrap::HOST_CALLS,
    },
    Kind {
        name: "kvm",
        about: "a virtual machine, with the device /dev/kvm",
        device: Some(platform_kvm::DEVICE),
        make: |means| {
            let device = means.device.as_ref().map(OwnedFd::try_clone).transpose();
            let device =
                device.map_err(|source| PlatformError::Host { doing: "copying a descriptor", source })?;
            Ok(Arc::new(Kvm::with(means.view.clone(), device, means.memory)?))
        },
        host_calls: platform_kvm::HOST_CALLS,
    },
    Kind {
        name: "ptrace",
        about: "a tracer for each guest thread; works nearly everywhere",
        device: None,
        make: |means| Ok(Arc::new(Ptrace::with(means.view.clone())?)),
        host_calls: platform_ptrace::HOST_CALLS,
    },
];

/// A platform, and what it asks of the host once guests run.
pub(crate) struct Chosen {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) host_calls: &'static [Rule],
}

/// Opens the device that the platform called `name` works with: the one at `path`, or its usual one. None when it
/// needs none, and when the choice is left to us and it cannot be opened.
///
/// # Errors
/// There is no such platform, a device is given to one that needs none, or it cannot be opened.
pub fn device(name: &str, path: Option<&Path>) -> Result<Option<OwnedFd>, BootError> {
    let auto = name == AUTO;
    let usual = if auto { KINDS.iter().find_map(|kind| kind.device) } else { kind(name)?.device };
    let path = match (usual, path) {
        (None, Some(_)) => return Err(BootError::DeviceUnused(name.to_owned())),
        (None, None) => return Ok(None),
        (Some(usual), path) => path.map_or_else(|| PathBuf::from(usual), Path::to_owned),
    };
    match File::options().read(true).write(true).open(&path) {
        Ok(device) => Ok(Some(device.into())),
        Err(error) if auto => {
            tracing::info!(?path, %error, "no device for a platform");
            Ok(None)
        }
        Err(source) => Err(BootError::Device { platform: name.to_owned(), path, source }),
    }
}

fn kind(name: &str) -> Result<&'static Kind, BootError> {
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| BootError::NoPlatform(name.to_owned()))
}

/// Makes the platform called `name`, or the first that works here.
pub(crate) fn choose(name: &str, means: Means) -> Result<Chosen, BootError> {
    let make =
        |kind: &Kind| (kind.make)(&means).map(|platform| Chosen { platform, host_calls: kind.host_calls });
    if name != AUTO {
        return Ok(make(kind(name)?)?);
    }
    let mut reasons = Vec::new();
    for kind in KINDS {
        match make(kind) {
            Ok(chosen) => {
                tracing::info!(platform = kind.name, "chosen");
                return Ok(chosen);
            }
            Err(error) => {
                tracing::warn!(platform = kind.name, %error, "cannot be used here");
                reasons.push(error.to_string());
            }
        }
    }
    Err(BootError::NoneWorks(reasons.join("; ")))
}

/// A platform, and whether it works here.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Why it does not work here, if it does not.
    pub trouble: Option<String>,
}

/// Tries all platforms, by an address space each; those that work with a device with the one at `path`, or their
/// usual one.
pub fn survey(path: Option<&Path>) -> Vec<Found> {
    let found = |kind: &Kind| Found {
        name: kind.name,
        about: kind.about,
        trouble: try_one(kind, path).err().map(|error| error.to_string()),
    };
    KINDS.iter().map(found).collect()
}

fn try_one(kind: &Kind, path: Option<&Path>) -> Result<(), BootError> {
    let device = device(kind.name, path.filter(|_| kind.device.is_some()))?;
    let means = Means { view: HostView::take(), paths: Paths::All, device, memory: TRIAL };
    Ok((kind.make)(&means)?.new_address_space().map(drop)?)
}

/// Memory of guests that never run.
const TRIAL: u64 = 64 << 20;

/// The tables of all platforms by name, for those who check them.
#[cfg(test)]
pub(crate) fn tables() -> impl Iterator<Item = (&'static str, &'static [Rule])> {
    KINDS.iter().map(|kind| (kind.name, kind.host_calls))
}

#[cfg(test)]
mod tests {
    use super::{Means, Paths, TRIAL, choose, device, survey};
    use crate::BootError;
    use hostproc::HostView;
    use std::path::Path;

    fn means() -> Means {
        Means { view: HostView::take(), paths: Paths::All, device: None, memory: TRIAL }
    }

    #[test]
    fn some_platform_works_here() {
        assert!(choose("auto", means()).is_ok());
        assert!(matches!(choose("nonsense", means()), Err(BootError::NoPlatform(_))));
        assert!(survey(None).iter().any(|found| found.trouble.is_none()));
    }

    #[test]
    fn devices_are_for_those_who_need_them() {
        let (null, nowhere) = (Path::new("/dev/null"), Path::new("/no/such"));
        assert!(matches!(device("nonsense", None), Err(BootError::NoPlatform(_))));
        assert!(matches!(device("systrap", None), Ok(None)));
        assert!(matches!(device("systrap", Some(null)), Err(BootError::DeviceUnused(_))));
        assert!(matches!(device("kvm", Some(null)), Ok(Some(_))));
        let error = device("kvm", Some(nowhere)).expect_err("nothing is there").to_string();
        assert!(error.contains("/no/such") && error.contains("kvm"), "{error}");
        assert!(matches!(device("auto", Some(nowhere)), Ok(None)));
    }

    #[test]
    fn a_wrong_device_is_named() {
        for (given, says) in [(None, "no device"), (Some("/dev/null"), "not a device of KVM")] {
            let device = given.and_then(|path| device("kvm", Some(Path::new(path))).expect("it opens"));
            let Err(error) = choose("kvm", Means { device, ..means() }) else {
                panic!("it works with {given:?}")
            };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
