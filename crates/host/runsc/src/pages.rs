//! `runsc completion` and `man`: the command line as shells and manuals have it, for packages.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// Print a script for a shell.
#[derive(Args, Debug)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: Shell,
}

/// Write manual pages.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Directory for the pages, which are made anew; runsc.1, runsc-do.1 and so on
    pub(crate) dir: PathBuf,
}

/// Runs `completion`.
pub(crate) fn completion(arguments: &Completion) -> Result<u8> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "runsc", &mut script);
    std::io::stdout().write_all(&script).context("standard output")?;
    Ok(0)
}

/// Runs `man`.
pub(crate) fn man(arguments: &Man) -> Result<u8> {
    let dir = &arguments.dir;
    fs::create_dir_all(dir).with_context(|| format!("{dir:?}"))?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| format!("{dir:?}"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{Man, man};

    #[test]
    fn there_is_a_page_for_each_command_that_is_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        man(&Man { dir: dir.path().join("man") }).expect("pages");
        let page = |name: &str| std::fs::read_to_string(dir.path().join("man").join(name));
        assert!(page("runsc.1").expect("a page").contains("metric\\-server"));
        assert!(page("runsc-exec.1").expect("a page").contains("additional\\-gids"));
        assert!(page("runsc-boot.1").is_err());
    }
}
