//! The platforms there are, and which of them one gets.
//!
//! This is the only place that names backends. A backend is made while the host is still there to look at, and
//! brings the host calls that it makes later.

use std::sync::Arc;

use hostproc::HostView;
use hostsys::seccomp::Rule;
use platform::{Platform, PlatformError};
use platform_ptrace::Ptrace;
use platform_systrap::Systrap;

use crate::BootError;

/// Which ways guests' calls enter by.
pub(crate) use platform_systrap::Paths;

/// The name that leaves the choice to us.
const AUTO: &str = "auto";

/// A kind of platform.
struct Kind {
    name: &'static str,
    about: &'static str,
    make: fn(&HostView, Paths) -> Result<Arc<dyn Platform>, PlatformError>,
    host_calls: &'static [Rule],
}

/// All of them, the best first.
static KINDS: &[Kind] = &[
    Kind {
        name: "systrap",
        about: "seccomp notification; the fastest",
        make: |view, paths| Ok(Arc::new(Systrap::with_paths(view.clone(), paths)?)),
        host_calls: platform_systrap::HOST_CALLS,
    },
    Kind {
        name: "ptrace",
        about: "a tracer for each guest thread; works nearly everywhere",
        make: |view, _| Ok(Arc::new(Ptrace::with(view.clone())?)),
        host_calls: platform_ptrace::HOST_CALLS,
    },
];

/// A platform, and what it asks of the host once guests run.
pub(crate) struct Chosen {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) host_calls: &'static [Rule],
}

/// Makes the platform called `name`, or the first that works here, with these ways for guests' calls to enter
/// when it has several.
pub(crate) fn choose(name: &str, paths: Paths, view: &HostView) -> Result<Chosen, BootError> {
    let make = |kind: &Kind| {
        (kind.make)(view, paths).map(|platform| Chosen { platform, host_calls: kind.host_calls })
    };
    if name != AUTO {
        let kind = KINDS.iter().find(|kind| kind.name == name);
        return Ok(make(kind.ok_or_else(|| BootError::NoPlatform(name.to_owned()))?)?);
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

/// Tries all platforms, by an address space each.
pub fn survey() -> Vec<Found> {
    let view = HostView::take();
    let try_one = |kind: &Kind| (kind.make)(&view, Paths::All).and_then(|p| p.new_address_space().map(drop));
    let found = |kind: &Kind| Found {
        name: kind.name,
        about: kind.about,
        trouble: try_one(kind).err().map(|error| error.to_string()),
    };
    KINDS.iter().map(found).collect()
}

/// The tables of all platforms by name, for those who check them.
#[cfg(test)]
pub(crate) fn tables() -> impl Iterator<Item = (&'static str, &'static [Rule])> {
    KINDS.iter().map(|kind| (kind.name, kind.host_calls))
}

#[cfg(test)]
mod tests {
    use super::{Paths, choose, survey};
    use crate::BootError;
    use hostproc::HostView;

    #[test]
    fn some_platform_works_here() {
        let view = HostView::take();
        assert!(choose("auto", Paths::All, &view).is_ok());
        assert!(matches!(choose("nonsense", Paths::All, &view), Err(BootError::NoPlatform(_))));
        assert!(survey().iter().any(|found| found.trouble.is_none()));
    }
}
