//! Why a program cannot be loaded.

use abi::Errno;

/// Why a program cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Neither an x86-64 ELF program nor a script.
    #[error("not a program")]
    NotExecutable,
    /// The ELF interpreter is none.
    #[error("the ELF interpreter is not an ELF library")]
    BadInterpreter,
    /// Program headers that make no sense.
    #[error("malformed program headers")]
    Malformed,
    /// Scripts interpreted by scripts, too deep.
    #[error("too many levels of script interpreters")]
    TooDeep,
    /// Arguments and environment are too large.
    #[error("argument list too long")]
    TooLong,
    /// The program does not fit the address space or its limits, or a file could not be read or mapped.
    #[error("{0}")]
    System(Errno),
}

impl From<Errno> for LoadError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<guestmem::Fault> for LoadError {
    fn from(_: guestmem::Fault) -> Self {
        Self::System(Errno::EFAULT)
    }
}

impl From<LoadError> for Errno {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotExecutable => Self::ENOEXEC,
            LoadError::BadInterpreter => Self::ELIBBAD,
            LoadError::Malformed => Self::EINVAL,
            LoadError::TooDeep => Self::ELOOP,
            LoadError::TooLong => Self::E2BIG,
            LoadError::System(errno) => errno,
        }
    }
}
