//! What can go wrong with a request, and how containerd is told.

use std::path::{Path, PathBuf};

use containerd_shim_protos::ttrpc::{self, Code};
use thiserror::Error;

/// Why a request failed.
#[derive(Debug, Error)]
pub(crate) enum ShimError {
    /// There is no such container or process.
    #[error("{what} {id:?} does not exist")]
    NotFound { what: &'static str, id: String },
    /// There is one already.
    #[error("{what} {id:?} already exists")]
    Exists { what: &'static str, id: String },
    /// It is not in the state for that.
    #[error("{id:?} is {state}: cannot {operation} it")]
    WrongState { id: String, state: &'static str, operation: &'static str },
    /// A request, or what it points to, is wrong.
    #[error("{what}: {reason}")]
    Invalid { what: String, reason: String },
    /// We do not do that.
    #[error("{0}")]
    Unimplemented(&'static str),
    /// A file of the host.
    #[error("{path:?}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// `runsc` says that something failed.
    #[error("runsc {command}: {reason}")]
    Runsc { command: &'static str, reason: String },
}

impl ShimError {
    /// An error about a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }

    /// As [`ShimError::io`], of a call that says an error number.
    pub(crate) fn host(path: &Path) -> impl FnOnce(nix::Error) -> Self {
        move |errno| Self::Io { path: path.into(), source: errno.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::WrongState { .. } => Code::FAILED_PRECONDITION,
            Self::Invalid { .. } => Code::INVALID_ARGUMENT,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            // containerd takes a process that cannot be signalled any more for one that has ended.
            Self::Runsc { reason, .. }
                if reason.contains("not running") || reason.contains("does not exist") =>
            {
                Code::NOT_FOUND
            }
            Self::Io { .. } | Self::Runsc { .. } => Code::UNKNOWN,
        }
    }
}

impl From<ShimError> for ttrpc::Error {
    fn from(error: ShimError) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error.to_string()))
    }
}
