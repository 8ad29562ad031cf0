//! What can go wrong with a container.

use std::path::PathBuf;

use thiserror::Error;

use crate::Status;

/// Why an operation on a container failed.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The id cannot name a container.
    #[error("container id {0:?}: 1 to 255 of letters, digits and \"_+-.\", not only dots")]
    BadId(String),
    /// There is such a container already.
    #[error("container {0:?} already exists")]
    Exists(String),
    /// There is no such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// The container's status does not allow the operation.
    #[error("container {id:?} is {status}: cannot {operation} it")]
    WrongStatus {
        /// Its id.
        id: String,
        /// Its status.
        status: Status,
        /// What was asked for.
        operation: &'static str,
    },
    /// The state directory cannot be used.
    #[error("{path:?}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// A state file is damaged.
    #[error("{path:?}: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}
