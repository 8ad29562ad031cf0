//! `runsc help`: the commands, the system calls that guests have, and the platforms that work here.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use serde_json::json;
use syscalls::table::Support;
use syscalls::x86_64::X86_64;

use crate::cli::{Cli, Format, Help};
use crate::commands::print;

/// Runs `help`.
pub(crate) fn run(cli: &Cli, arguments: &Help) -> Result<u8> {
    let mut command = Cli::command();
    let text = match arguments.topic.as_deref() {
        None => command.render_help().to_string(),
        Some("syscalls") => table(arguments.format)?,
        Some("platforms") => platforms(cli, arguments.format)?,
        Some(name) => {
            command.build();
            let Some(found) = command.find_subcommand_mut(name) else { bail!("no command {name:?}") };
            found.render_help().to_string()
        }
    };
    print(text.trim_end())
}

fn table(format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(columns()),
        Format::Json => {
            let rows = X86_64.rows().map(|row| {
                let (support, note) = describe(&row.support);
                json!({ "number": row.nr, "name": row.name(), "support": support, "note": note })
            });
            serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).context("the table")
        }
    }
}

/// Tries them all.
fn platforms(cli: &Cli, format: Format) -> Result<String> {
    let found = sentry::platforms::survey(cli.platform_device_path.as_deref());
    if format == Format::Json {
        let rows = found.iter().map(|one| {
            json!({ "name": one.name, "about": one.about, "works": one.trouble.is_none(), "trouble": one.trouble })
        });
        return serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).context("the platforms");
    }
    let mut text = format!("{:<10} {:<6} NOTE\n", "PLATFORM", "WORKS");
    for one in &found {
        let (works, note) = match &one.trouble {
            None => ("yes", one.about),
            Some(trouble) => ("no", trouble.as_str()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<10} {works:<6} {note}", one.name);
    }
    Ok(text)
}

fn columns() -> String {
    let mut text = format!("{:<5} {:<24} {:<8} NOTE\n", "NR", "NAME", "SUPPORT");
    for row in X86_64.rows() {
        let (support, note) = describe(&row.support);
        let line = format!("{:<5} {:<24} {support:<8} {note}", row.nr, row.name());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn describe(support: &Support) -> (&'static str, String) {
    match support {
        Support::Full => ("full", String::new()),
        Support::Partial(gap) => ("partial", (*gap).into()),
        Support::Refused(errno, why) => ("refused", format!("{errno}: {why}")),
    }
}
