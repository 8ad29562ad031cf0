//! `cargo xtask docs`: the pages that `runsc` itself can tell: its commands and flags, and the system calls
//! that guests have.
//!
//! Each page is a text by hand around a generated part, between two marker lines. [`run`] rewrites that part;
//! [`stale`] names the pages in which it is not what `runsc` says.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

const BEGIN: &str = "<!-- generated:begin (cargo xtask docs) -->\n";
const END: &str = "<!-- generated:end -->";

/// Rewrites the generated parts below `root` to what `runsc` says.
///
/// # Errors
/// When `runsc` does not answer, or a page has no place for its generated part.
pub(crate) fn run(root: &Path, runsc: &Path) -> anyhow::Result<()> {
    for (page, text) in pages(runsc)? {
        let path = root.join(page);
        let now = read(&path)?;
        std::fs::write(&path, splice(&now, &text).with_context(|| page.to_owned())?)?;
    }
    Ok(())
}

/// The pages whose generated part is not what `runsc` says.
///
/// # Errors
/// As [`run`].
pub(crate) fn stale(root: &Path, runsc: &Path) -> anyhow::Result<Vec<&'static str>> {
    let mut stale = Vec::new();
    for (page, text) in pages(runsc)? {
        let now = read(&root.join(page))?;
        if splice(&now, &text).with_context(|| page.to_owned())? != now {
            stale.push(page);
        }
    }
    Ok(stale)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn pages(runsc: &Path) -> anyhow::Result<[(&'static str, String); 2]> {
    Ok([("docs/compatibility.md", syscalls(runsc)?), ("docs/commands.md", commands(runsc)?)])
}

/// `page` with `text` between its markers.
fn splice(page: &str, text: &str) -> anyhow::Result<String> {
    let Some((before, rest)) = page.split_once(BEGIN) else { bail!("no line {BEGIN:?}") };
    let Some((_, after)) = rest.split_once(END) else { bail!("no line {END:?}") };
    Ok(format!("{before}{BEGIN}\n{}\n\n{END}{after}", text.trim()))
}

/// What `runsc` says to these arguments.
fn ask(runsc: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(runsc).args(arguments).output().context("running runsc")?;
    ensure!(output.status.success(), "runsc {}: {}", arguments.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// A row of `runsc help syscalls --format json`.
#[derive(Deserialize)]
struct Row {
    number: u32,
    name: String,
    support: String,
    note: String,
}

fn syscalls(runsc: &Path) -> anyhow::Result<String> {
    let rows: Vec<Row> = serde_json::from_str(&ask(runsc, &["help", "syscalls", "--format", "json"])?)?;
    Ok(table(&rows))
}

fn table(rows: &[Row]) -> String {
    let count = |support: &str| rows.iter().filter(|row| row.support == support).count();
    let mut text = format!(
        "{} calls: {} in full, {} in part, {} refused.\n\n| number | call | support | note |\n|---|---|---|---|",
        rows.len(),
        count("full"),
        count("partial"),
        count("refused")
    );
    for Row { number, name, support, note } in rows {
        let note = note.replace('|', "\\|");
        // Writing to a string does not fail.
        let _ = write!(text, "\n| {number} | `{name}` | {support} | {note} |");
    }
    text
}

fn commands(runsc: &Path) -> anyhow::Result<String> {
    let general = ask(runsc, &["help"])?;
    let mut text = format!("```text\n{}\n```", plain(&general));
    for name in names(&general) {
        let help = ask(runsc, &["help", name])?;
        let _ = write!(text, "\n\n## runsc {name}\n\n```text\n{}\n```", plain(own_part(&help, &general)));
    }
    Ok(text)
}

/// The commands that a general help lists.
fn names(help: &str) -> Vec<&str> {
    let rest = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    rest.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// A command's help without the options that every command has.
fn own_part(help: &str, general: &str) -> String {
    let shared: Vec<Vec<&str>> = entries(general).iter().map(|entry| words(entry)).collect();
    let own = entries(help).into_iter().filter(|entry| !is_option(entry) || !shared.contains(&words(entry)));
    let text: String =
        own.flat_map(|entry| entry.lines()).map(|line| format!("{}\n", line.trim_end())).collect();
    text.trim_end().trim_end_matches("Options:").trim_end().to_owned()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn is_option(entry: &str) -> bool {
    entry.trim_start().starts_with('-')
}

/// The lines of a help, each option in one piece: what explains it may stand on lines of its own.
fn entries(help: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let (mut start, mut at, mut in_option) = (0, 0, false);
    for line in help.split_inclusive('\n') {
        let goes_on = in_option && !is_option(line) && line.starts_with("   ");
        if !goes_on {
            entries.push(&help[start..at]);
            (start, in_option) = (at, is_option(line));
        }
        at += line.len();
    }
    entries.push(&help[start..at]);
    entries
}

fn plain(text: impl AsRef<str>) -> String {
    let lines: Vec<&str> = text.as_ref().lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, Row, names, own_part, splice, table};

    const GENERAL: &str = "About.\n\nCommands:\n  do   Run\n  kill Send\n\nOptions:\n      --debug  Detail\n";

    #[test]
    fn a_page_keeps_what_is_by_hand() {
        let page = format!("# Title\n\n{BEGIN}old\n{END}\n\nEnd.\n");
        let new = splice(&page, "new\n").expect("a page with markers");
        assert_eq!(new, format!("# Title\n\n{BEGIN}\nnew\n\n{END}\n\nEnd.\n"));
        assert_eq!(splice(&new, "new").expect("a page with markers"), new);
        assert!(splice("no markers", "").is_err());
    }

    #[test]
    fn a_command_shows_its_own_options_only() {
        assert_eq!(names(GENERAL), ["do", "kill"]);
        let help = "Send\n\nOptions:\n  -a  All\n      --debug    Detail\n";
        assert_eq!(own_part(help, GENERAL), "Send\n\nOptions:\n  -a  All");
        assert_eq!(own_part("Send\n\nOptions:\n  --debug  Detail\n", GENERAL), "Send");
        let long = "Send\n\nOptions:\n  -a\n          All\n      --debug\n          Detail\n";
        assert_eq!(own_part(long, GENERAL), "Send\n\nOptions:\n  -a\n          All");
    }

    #[test]
    fn calls_are_counted_by_support() {
        let row = |support: &str, note: &str| Row {
            number: 7,
            name: "poll".into(),
            support: support.into(),
            note: note.into(),
        };
        let text = table(&[row("full", ""), row("partial", "a|b")]);
        assert!(text.starts_with("2 calls: 1 in full, 1 in part, 0 refused."), "{text}");
        assert!(text.ends_with("| 7 | `poll` | partial | a\\|b |"), "{text}");
    }
}
