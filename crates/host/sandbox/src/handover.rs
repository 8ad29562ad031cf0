//! What the processes of a sandbox are given by their parent: numbered descriptors, and a configuration
//! in a sealed memfd, which nobody can change afterwards.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sentry::BootConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// The configuration.
pub(crate) const CONFIG: RawFd = 3;
/// A pipe that takes one message: why the process failed.
pub(crate) const REPORT: RawFd = 4;
/// The Gofer holds the end for writing of this pipe for all its life; the Sentry reads.
pub(crate) const LIFELINE: RawFd = 5;
/// The first of those that the configuration names.
pub(crate) const FIRST: RawFd = 6;
/// Longest configuration in bytes: a spec is bounded to as much.
const MAX_CONFIG: u64 = 8 << 20;

/// Configuration of a Gofer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoferConfig {
    /// What it serves, by index.
    pub(crate) attachments: Vec<AttachmentFd>,
    /// Connections of the Sentry.
    pub(crate) sockets: Vec<RawFd>,
    /// A pipe from which comes one byte when the sandbox is noted by whoever started it; without that it is
    /// nobody's, and ends.
    pub(crate) noted: RawFd,
}

/// A tree that a Gofer serves.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachmentFd {
    /// Its root.
    pub(crate) fd: RawFd,
    /// Refuse every change.
    pub(crate) readonly: bool,
    /// Where it is, when the descriptor is not a copy: the Gofer then has to make that itself.
    pub(crate) copy_from: Option<PathBuf>,
}

/// Configuration of a Sentry.
pub(crate) type SentryConfig = BootConfig;

fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> SandboxError {
    move |source| SandboxError::Host { doing, source }
}

/// Seals a configuration.
pub(crate) fn seal<T: Serialize>(config: &T) -> Result<OwnedFd, SandboxError> {
    let failed = failed("cannot hand over a configuration");
    let make = || {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create("runsc-config", flags)?);
        file.write_all(&serde_json::to_vec(config)?)?;
        file.rewind()?;
        let seals = [SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SHRINK];
        let seals = seals.into_iter().fold(SealFlag::F_SEAL_SEAL, |all, seal| all | seal);
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    };
    make().map_err(failed)
}

/// Takes the configuration that was handed over to this process.
pub(crate) fn take<T: DeserializeOwned>() -> Result<T, SandboxError> {
    let failed = failed("no configuration was handed over");
    let mut bytes = Vec::new();
    let file = File::from(inherit(CONFIG)?);
    file.take(MAX_CONFIG).read_to_end(&mut bytes).map_err(&failed)?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
}

/// Takes a descriptor that was handed over to this process.
pub(crate) fn inherit(number: RawFd) -> Result<OwnedFd, SandboxError> {
    hostsys::inherit::take(number).map_err(|errno| SandboxError::NotInherited { number, errno })
}

#[cfg(test)]
mod tests {
    use super::{AttachmentFd, GoferConfig, seal};
    use std::io::{Read, Write};

    #[test]
    fn a_configuration_cannot_be_changed() {
        let attachment = AttachmentFd { fd: 6, readonly: true, copy_from: None };
        let config = GoferConfig { attachments: vec![attachment], sockets: vec![7], noted: 8 };
        let mut file = std::fs::File::from(seal(&config).expect("seals"));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("reads");
        assert_eq!(serde_json::from_slice::<GoferConfig>(&bytes).expect("parses"), config);
        assert!(file.write(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }
}
