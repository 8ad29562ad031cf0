//! `containerd-shim-runsc-v1`: what stands between containerd and the containers of one pod.
//!
//! containerd starts this program once a container with the action `start` ([`bootstrap`]): it answers with the
//! address of a shim, a process of this program that serves the pod the container belongs to; the first one starts
//! it. The shim speaks containerd's task API over ttrpc ([`service`]), makes [`container`]s by calling `runsc` as any
//! engine would ([`runsc`]), waits for their processes ([`reaper`]) and tells containerd what happens to them
//! ([`events`]). When a shim has died, containerd calls the action `delete` ([`cleanup`]) for each of its containers.
//!
//! The messages and the transport are those of the crate `containerd-shim-protos`; the frame of `containerd-shim`
//! around them is not used: it serves only version 3 of the task API, which containerd 1.6 does not speak, and brings
//! a client of D-Bus along.
//!
//! Deliberately absent: checkpoints, loggers that are programs of their own (`binary://`), and containerd's sandbox
//! API.
#![forbid(unsafe_code)]

mod args;
mod bootstrap;
mod cleanup;
mod config;
mod container;
mod error;
mod events;
mod log;
mod oci_parts;
mod oom;
mod process;
mod reaper;
mod rootfs;
mod runsc;
mod service;
mod stats;
mod stdio;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::args::{Action, Args};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows it as the reason why the shim does not start.
            let _ = writeln!(std::io::stderr(), "containerd-shim-runsc-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.action {
        Action::Version => print(version().as_bytes()),
        Action::Info => print(&bootstrap::info()?),
        Action::Start => print(bootstrap::start(&args)?.as_bytes()),
        Action::Delete => print(&cleanup::run(&args)?),
        Action::Serve => service::serve(&args),
    }
}

fn version() -> String {
    format!("containerd-shim-runsc-v1:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))
}

/// Writes an answer to standard output, where containerd reads it.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        bail!("standard output: {error}");
    }
    Ok(())
}

/// The working directory, which containerd makes the bundle.
fn bundle(args: &Args) -> Result<std::path::PathBuf> {
    match &args.bundle {
        Some(bundle) => Ok(bundle.clone()),
        None => std::env::current_dir().context("the working directory"),
    }
}
