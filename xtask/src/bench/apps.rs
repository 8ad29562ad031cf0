//! Loads of real programs: `benches/apps/*.sh`, each timed natively and in every sandbox, by turns.
//!
//! A load is a shell script with a function `work`, which is timed, and maybe `prepare`, which is run natively before
//! each turn in a directory of its own: what a contestant leaves there is no other's. The time is taken inside of
//! the sandbox, whose start has a row of its own. A load whose `# needs:` this machine lacks is named and left out.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use super::Contestant;
use crate::report::note;
use crate::suite::on_path;

/// A load.
pub(super) struct Load {
    pub(super) name: String,
    script: PathBuf,
}

/// The loads that this machine has the programs for; of the names in `only`, when there are any.
pub(super) fn loads(root: &Path, only: &[String]) -> anyhow::Result<Vec<Load>> {
    let mut loads = Vec::new();
    for entry in std::fs::read_dir(root.join("benches/apps"))? {
        let script = entry?.path();
        let name = script.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        if name == "timed" || !(only.is_empty() || only.contains(&name)) {
            continue;
        }
        let text = std::fs::read_to_string(&script)?;
        match missing(&text) {
            Some(program) => note(&format!("{name}: left out, there is no {program}")),
            None => loads.push(Load { name, script }),
        }
    }
    loads.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(loads)
}

/// A program that the `# needs:` line of a load names and that is not here.
fn missing(text: &str) -> Option<&str> {
    let needs = text.lines().find_map(|line| line.strip_prefix("# needs:"))?;
    needs.split_whitespace().find(|program| !on_path(program))
}

/// One turn of one contestant.
pub(super) fn measure(root: &Path, contestant: &Contestant, load: &Load) -> anyhow::Result<f64> {
    let folder = std::env::temp_dir().join(format!("rampart-bench-{}", std::process::id()));
    let run = |command: &mut std::process::Command, phase: &str| -> anyhow::Result<String> {
        let script = root.join("benches/apps/timed.sh");
        command.arg("sh").arg(script).arg(&load.script).arg(phase).current_dir(&folder);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{} of {}: {}", contestant.name, load.name, output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    std::fs::create_dir_all(&folder)?;
    let outcome = run(&mut std::process::Command::new("env"), "prepare")
        .and_then(|_| run(&mut contestant.command(), "work"))
        .and_then(|text| text.trim().parse().with_context(|| format!("not a time: {text:?}")));
    std::fs::remove_dir_all(&folder)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn a_load_is_left_out_for_what_is_missing() {
        assert_eq!(missing("# needs: sh\nwork() { :; }"), None);
        assert_eq!(missing("# needs: sh no-such-program\n"), Some("no-such-program"));
        assert_eq!(missing("work() { :; }"), None);
    }
}
