//! Conversions between registers and the types of handler parameters and results.
//!
//! No conversion looks at guest memory: Linux validates pointers late (`read(fd, NULL, 0)` succeeds).
//! Linux's `int` parameters use the low 32 bits of a register and ignore the rest.

use abi::signal::Signal;
use abi::{Errno, SysResult};
use guestmem::{UserAddr, UserCStr, UserPtr};

/// A parameter type.
pub trait FromArg: Sized {
    /// From the register; an errno only where the *type* of the argument already is wrong.
    fn from_arg(raw: u64) -> SysResult<Self>;

    /// As an strace line shows it.
    fn describe(raw: u64) -> String;
}

/// A result type.
pub trait IntoReturn {
    /// The value for `rax`.
    fn into_return(self) -> u64;
}

macro_rules! int_arg {
    ($($ty:ty),*) => {$(
        impl FromArg for $ty {
            fn from_arg(raw: u64) -> SysResult<Self> {
                Ok(raw as $ty)
            }

            fn describe(raw: u64) -> String {
                (raw as $ty).to_string()
            }
        }

        impl IntoReturn for $ty {
            fn into_return(self) -> u64 {
                self as i64 as u64
            }
        }
    )*};
}

int_arg!(i32, u32, i64, u64, usize);

impl IntoReturn for () {
    fn into_return(self) -> u64 {
        0
    }
}

impl IntoReturn for UserAddr {
    fn into_return(self) -> u64 {
        self.0
    }
}

/// A file descriptor argument: an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub i32);

impl FromArg for Fd {
    fn from_arg(raw: u64) -> SysResult<Self> {
        Ok(Self(raw as i32))
    }

    fn describe(raw: u64) -> String {
        match raw as i32 {
            abi::fs::AT_FDCWD => "AT_FDCWD".to_owned(),
            fd => fd.to_string(),
        }
    }
}

impl IntoReturn for Fd {
    fn into_return(self) -> u64 {
        self.0 as i64 as u64
    }
}

macro_rules! address_arg {
    ($($ty:ty => $make:expr;)*) => {$(
        impl FromArg for $ty {
            fn from_arg(raw: u64) -> SysResult<Self> {
                Ok($make(UserAddr(raw)))
            }

            fn describe(raw: u64) -> String {
                describe_address(raw)
            }
        }
    )*};
}

address_arg! {
    UserAddr => core::convert::identity;
    UserCStr => UserCStr;
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> SysResult<Self> {
        Ok(Self::new(UserAddr(raw)))
    }

    fn describe(raw: u64) -> String {
        describe_address(raw)
    }
}

impl FromArg for Signal {
    fn from_arg(raw: u64) -> SysResult<Self> {
        Self::new(raw as i32).ok_or(Errno::EINVAL.into())
    }

    fn describe(raw: u64) -> String {
        match Self::new(raw as i32) {
            Some(signal) => format!("{signal:?}"),
            None => (raw as i32).to_string(),
        }
    }
}

fn describe_address(raw: u64) -> String {
    if raw == 0 { "NULL".to_owned() } else { format!("{raw:#x}") }
}
