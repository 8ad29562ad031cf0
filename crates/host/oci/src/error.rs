//! What can be wrong with a bundle.

use std::path::PathBuf;

use thiserror::Error;

/// Why a bundle is refused.
#[derive(Debug, Error)]
pub enum OciError {
    /// No such bundle.
    #[error("bundle {path:?}: {source}")]
    Bundle {
        /// Directory given.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The spec cannot be read.
    #[error("{file:?}: {source}")]
    Read {
        /// The spec.
        file: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The spec is too long to be one.
    #[error("{file:?}: longer than {max} bytes")]
    TooLong {
        /// The spec.
        file: PathBuf,
        /// Limit in bytes.
        max: u64,
    },
    /// Not JSON, or not of the shape of a spec.
    #[error("{file:?}: {source}")]
    Syntax {
        /// The spec.
        file: PathBuf,
        /// What the parser said, with the line.
        source: serde_json::Error,
    },
    /// A field that must be there is not.
    #[error("{file:?}: {field}: missing")]
    Missing {
        /// The spec.
        file: PathBuf,
        /// Path of the field, such as `process.args`.
        field: String,
    },
    /// A field has a value that the runtime cannot accept.
    #[error("{file:?}: {field}: {value:?}: {reason}")]
    Invalid {
        /// The spec.
        file: PathBuf,
        /// Path of the field, such as `mounts[2].type`.
        field: String,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
