//! Messages between runsc and a running sandbox, over one Unix socket.
//!
//! The Sentry listens on a `SOCK_SEQPACKET` socket in the container's state directory. A connection
//! carries [`Request`]s, each answered by one [`Reply`]; both are JSON, one datagram each, because they
//! are few and meant to be read by people who look for a fault. Descriptors for [`Request::Exec`] and
//! [`Request::Attach`] travel beside it.
//!
//! [`Client`] asks. [`Server`] answers, for a [`Guest`]: it keeps the gate that a created container waits
//! at, and tells those who wait how the container ended. Neither side trusts the other: lengths are
//! bounded, unknown fields refused.
#![forbid(unsafe_code)]

mod client;
mod message;
pub mod metrics;
mod network;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, bind};
pub use message::{
    ControlError, ExitStatus, MAX_MESSAGE, Member, Process, ProcessInfo, Reply, Request, Rlimit, Target,
};
pub use network::{
    AddressConfig, EgressConfig, EgressRule, EgressTarget, LinkConfig, NeighborConfig, NetworkConfig,
    RouteConfig,
};
pub use server::{Begin, Guest, Server};
