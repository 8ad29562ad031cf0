//! An end of a connection, whether its other end is in the sandbox or outside.

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use vfs::Result;

use super::splice::{self, Closed, Facts, Side, Sizes};
use super::state::TcpState;
use super::wire::Wire;
use crate::{Received, Shutdown, Try};

/// An end of a connection.
#[derive(Clone)]
pub(super) enum End {
    /// The other is in the sandbox.
    Spliced(splice::End),
    /// It is outside.
    Wire(Wire),
}

/// Calls the method of either.
macro_rules! either {
    ($end:expr, $name:ident $(, $argument:expr)*) => {
        match $end {
            End::Spliced(end) => end.$name($($argument),*),
            End::Wire(end) => end.$name($($argument),*),
        }
    };
}

impl End {
    /// Which end it is, as far as that is of interest to who remembers it.
    pub(super) fn side(&self) -> Side {
        match self {
            Self::Spliced(end) => end.side(),
            Self::Wire(_) => Side::Client,
        }
    }

    /// Sends as much as there is room for; with `urgent`, the last byte so. `EPIPE` when nobody reads.
    pub(super) fn write(&self, source: &mut dyn IoSource, urgent: bool) -> Try<usize> {
        either!(self, write, source, urgent)
    }

    /// Reads what is there; `EAGAIN` when nothing is.
    pub(super) fn read(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        either!(self, read, sink, flags)
    }

    /// `SIOCATMARK`.
    pub(super) fn is_at_mark(&self) -> bool {
        match self {
            Self::Spliced(end) => end.is_at_mark(),
            // Urgent data is taken as ordinary.
            Self::Wire(_) => false,
        }
    }

    /// `shutdown(2)`; `ENOTCONN` when the connection is over.
    pub(super) fn shutdown(&self, how: Shutdown) -> Result<Closed> {
        either!(self, shutdown, how)
    }

    /// The socket of this end goes; `abort` says it with a RST.
    pub(super) fn close(&self, abort: bool) -> Closed {
        either!(self, close, abort)
    }

    /// Readiness.
    pub(super) fn poll(&self) -> PollEvents {
        either!(self, poll)
    }

    /// Takes the pending error.
    pub(super) fn take_error(&self) -> Option<Errno> {
        either!(self, take_error)
    }

    /// Changes sizes and switches.
    pub(super) fn resize(&self, sizes: Sizes) {
        either!(self, resize, sizes)
    }

    /// The state of this end.
    pub(super) fn state(&self) -> TcpState {
        either!(self, state)
    }

    /// Numbers.
    pub(super) fn facts(&self) -> Facts {
        either!(self, facts)
    }
}
