//! The command line: an OCI runtime, and `do` for a program in a sandbox of its own.
//!
//! [`cli`] is the grammar, [`commands`] what each command does. Every failure is one line on standard
//! error and exit status 1, as runc's.
//!
//! `do` runs a program in a sandbox of its own ([`once`]); [`lifecycle`], [`exec`], [`update`]
//! and [`events`] are the commands on containers, [`metrics`] shows what sandboxes have counted. The hidden commands `gofer` and `boot` are what the `sandbox` crate starts this program as,
//! `stand` is what a detached `exec` leaves behind.
//!
//! Deliberately absent as yet: `checkpoint` and `restore`.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod events;
mod exec;
mod features;
mod forward;
mod help;
mod install;
mod lifecycle;
mod logging;
mod metrics;
mod once;
mod pages;
mod pods;
mod terminal;
mod update;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;

/// Exit status of every failure of `runsc` itself.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let result = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => commands::run(&cli).inspect_err(|error| logging::failure(&cli, error)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Standard output may be closed: nothing more can be done then.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(anyhow::anyhow!("{}", cli::one_line(&error))),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "runsc: {}", logging::said(&error));
            ExitCode::from(FAILURE)
        }
    }
}
