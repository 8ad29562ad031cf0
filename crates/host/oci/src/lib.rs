//! OCI runtime specs: reading a bundle, and checking it before anything is made.
//!
//! - [`bundle`]: a bundle directory and its `config.json`.
//! - [`check`]: what of the spec we insist on; every refusal names the file and the field.
//! - [`template`]: what `runsc spec` writes.
//!
//! Source: OCI Runtime Specification 1.2, `config.md` and `bundle.md`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

pub mod bundle;
pub mod check;
pub mod template;

pub use bundle::Bundle;
pub use oci_spec::runtime::Spec;

/// Why a bundle cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.json` (or the bundle) cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `config.json` is not JSON, or a field has a wrong type or an unknown value.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field is missing or says something impossible.
    #[error("{}: {field}: {reason}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Field, as a path of JSON keys.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}
