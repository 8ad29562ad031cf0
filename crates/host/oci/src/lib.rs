//! OCI runtime specs: reading, checking, and a template to start from.
//!
//! [`load`] reads `config.json` of a bundle and checks what the runtime relies on; its errors name the
//! file and the field. [`template`] is what `runsc spec` writes.
//!
//! [`seccomp`] makes a filter of a profile.
//!
//! Deliberately absent as yet: hooks, cgroups and id mappings are read but not turned into anything.
#![forbid(unsafe_code)]

mod check;
mod error;
mod pod;
pub mod seccomp;
mod template;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use error::OciError;
pub use oci_spec::runtime::{LinuxResources as Resources, Process, Spec};
pub use pod::{Role, role};
pub use template::template;

/// Name of the spec in a bundle.
pub const CONFIG: &str = "config.json";
/// Most bytes of a spec that are read.
const MAX_CONFIG: u64 = 8 << 20;

/// A bundle that was read and found good.
#[derive(Debug)]
pub struct Bundle {
    /// Its directory, absolute and without symbolic links.
    pub dir: PathBuf,
    /// Root of the container, absolute.
    pub rootfs: PathBuf,
    /// The whole spec.
    pub spec: Spec,
}

fn read(file: &Path) -> Result<Vec<u8>, OciError> {
    let io = |source| OciError::Read { file: file.into(), source };
    let mut text = Vec::new();
    File::open(file).map_err(io)?.take(MAX_CONFIG + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(OciError::TooLong { file: file.into(), max: MAX_CONFIG });
    }
    Ok(text)
}

fn parse(file: &Path, text: &[u8]) -> Result<serde_json::Value, OciError> {
    serde_json::from_slice(text).map_err(|source| OciError::Syntax { file: file.into(), source })
}

/// Reads and checks the bundle at `dir`.
pub fn load(dir: &Path) -> Result<Bundle, OciError> {
    let dir = dir.canonicalize().map_err(|source| OciError::Bundle { path: dir.into(), source })?;
    let file = dir.join(CONFIG);
    let value: serde_json::Value = parse(&file, &read(&file)?)?;
    // Before the typed parse, whose errors for unknown names do not say which field has them.
    check::raw(&file, &value)?;
    let spec: Spec =
        serde_json::from_value(value).map_err(|source| OciError::Syntax { file: file.clone(), source })?;
    let rootfs = check::rootfs(&file, &dir, &spec)?;
    Ok(Bundle { dir, rootfs, spec })
}

/// Reads a process as it stands in a spec, for `exec`.
pub fn load_process(file: &Path) -> Result<Process, OciError> {
    let file = file.to_path_buf();
    let value: serde_json::Value = parse(&file, &read(&file)?)?;
    check::process(&file, &value)?;
    serde_json::from_value(value).map_err(|source| OciError::Syntax { file, source })
}
