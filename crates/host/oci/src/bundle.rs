//! A bundle: a directory with a `config.json` and a root file system.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Error, check};

/// Bytes of the largest `config.json` we read. Engines write some tens of kilobytes.
const MAX_CONFIG: u64 = 16 << 20;

/// A bundle whose spec has been checked.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, absolute.
    pub path: PathBuf,
    /// The spec.
    pub spec: Spec,
    /// The root file system, absolute; it exists and is a directory.
    pub rootfs: PathBuf,
}

impl Bundle {
    /// Reads and checks the bundle at `path`.
    ///
    /// # Errors
    /// Every [`Error`]; each names the file, and the field where there is one.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let path = path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let config = path.join("config.json");
        let text = read_bounded(&config).map_err(|source| Error::Read { path: config.clone(), source })?;
        let spec = parse(&text).map_err(|source| Error::Parse { path: config.clone(), source })?;
        let refuse = |problem: check::Problem| Error::Field {
            path: config.clone(),
            field: problem.field,
            reason: problem.reason,
        };
        check::spec(&spec).map_err(refuse)?;
        let rootfs = check::rootfs(&spec, &path).map_err(refuse)?;
        Ok(Self { path, spec, rootfs })
    }
}

/// A spec from JSON text. Unknown fields are ignored, as the specification demands of runtimes.
///
/// # Errors
/// When it is not JSON, or a field has a wrong type or a value the specification does not know.
pub fn parse(text: &[u8]) -> Result<Spec, serde_json::Error> {
    serde_json::from_slice(text)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if read as u64 > MAX_CONFIG {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    Ok(text)
}
