//! The rules of the tree that no compiler checks.
//!
//! Per crate ([`check_crate`]): a stated tier and only strictly lower dependencies, one crate that
//! names platform backends, a crate root that forbids `unsafe` or a manifest that says why not.
//! Per file ([`check_file`]): a module doc first, `unsafe` only in files named `raw`, no
//! placeholders that panic, no overlong file without a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::lexer::{code_only, lines_with_word};

/// Longest file that needs no explanation, in lines.
const MAX_LINES: usize = 800;
/// The prefix of a platform backend's package name.
const BACKEND: &str = "rampart-platform-";
/// The one crate that chooses a platform backend.
const CHOOSER: &str = "rampart-sentry";

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A file or package, relative to the root.
    place: String,
    /// The line, from 1, when the finding is about one.
    line: Option<usize>,
    /// What is wrong, in words.
    what: String,
}

impl Finding {
    fn at(place: &str, line: Option<usize>, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.what),
            None => write!(f, "{}: {}", self.place, self.what),
        }
    }
}

/// Checks the workspace at `root`.
///
/// # Errors
/// When `cargo metadata` fails or a source file cannot be read: the tree could not be judged.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let tiers: BTreeMap<&str, Option<u64>> =
        metadata.packages.iter().map(|p| (p.name.as_str(), tier(p))).collect();

    let mut findings = Vec::new();
    for package in &metadata.packages {
        check_crate(package, &tiers, &mut findings)?;
    }
    for path in rust_files(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let place = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        check_file(&place, &text, &mut findings);
    }
    Ok(findings)
}

/// `package.metadata.layer.tier`.
fn tier(package: &Package) -> Option<u64> {
    package.metadata.get("layer")?.get("tier")?.as_u64()
}

/// `package.metadata.unsafe.reason`, when it says something.
fn unsafe_reason(package: &Package) -> Option<&str> {
    package.metadata.get("unsafe")?.get("reason")?.as_str().filter(|reason| !reason.is_empty())
}

fn check_crate(
    package: &Package,
    tiers: &BTreeMap<&str, Option<u64>>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<()> {
    let name = package.name.as_str();
    let Some(own) = tier(package) else {
        findings.push(Finding::at(name, None, "states no [package.metadata.layer] tier"));
        return Ok(());
    };
    // Dev-dependencies are exempt: a test may stand above what it tests.
    for dep in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
        if let Some(Some(theirs)) = tiers.get(dep.name.as_str()).filter(|theirs| **theirs >= Some(own)) {
            let what = format!("tier {own} depends on {} of tier {theirs}, which is not lower", dep.name);
            findings.push(Finding::at(name, None, what));
        }
        if dep.name.starts_with(BACKEND) && name != CHOOSER {
            let what = format!("names the backend {}; only {CHOOSER} may", dep.name);
            findings.push(Finding::at(name, None, what));
        }
    }
    check_roots(package, findings)
}

/// Every library and binary root forbids `unsafe`, or the manifest says why it cannot.
fn check_roots(package: &Package, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    if unsafe_reason(package).is_some() {
        return Ok(());
    }
    for target in package.targets.iter().filter(|t| t.is_lib() || t.is_bin()) {
        let text = std::fs::read_to_string(&target.src_path)?;
        if !code_only(&text).contains("#![forbid(unsafe_code)]") {
            let what = format!(
                "the root of {} has no #![forbid(unsafe_code)] and the manifest no [package.metadata.unsafe] reason",
                target.name
            );
            findings.push(Finding::at(package.name.as_str(), None, what));
        }
    }
    Ok(())
}

fn check_file(place: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//!") {
        findings.push(Finding::at(place, Some(1), "does not open with a `//!` module doc"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES && !text.lines().any(|l| l.trim_start().starts_with("// Long because:")) {
        let what = format!("{lines} lines, and no `// Long because:` to say why");
        findings.push(Finding::at(place, None, what));
    }
    let code = code_only(text);
    for word in ["todo", "unimplemented"] {
        for line in lines_with_word(&code, word, "!") {
            findings.push(Finding::at(place, Some(line), format!("`{word}!` panics: count a stub instead")));
        }
    }
    if !is_raw(place) {
        for line in lines_with_word(&code, "unsafe", "") {
            findings.push(Finding::at(place, Some(line), "`unsafe` outside a module named `raw`"));
        }
    }
}

/// Whether this file is `raw.rs` or lies under a folder `raw/`.
fn is_raw(place: &str) -> bool {
    Path::new(place).with_extension("").iter().any(|part| part == "raw")
}

/// Every Rust file of ours below `root`, sorted; build output and dot folders are not ours.
fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
                folders.push(entry.path());
            } else if kind.is_file() && name.ends_with(".rs") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Finding, MAX_LINES, check, check_file, is_raw};

    fn findings(place: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check_file(place, text, &mut found);
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_tree_is_tidy() {
        let found = check(&crate::root()).expect("the tree can be judged");
        let lines: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
    }

    #[test]
    fn each_rule_of_a_file_can_fail() {
        assert_eq!(findings("a.rs", "//! Good.\n"), Vec::<String>::new());
        assert_eq!(findings("a.rs", "fn f() {}\n").len(), 1);
        assert_eq!(findings("a.rs", "//!\nfn f() { todo!() }\n").len(), 1);
        assert_eq!(findings("a.rs", "//!\nfn f() { unimplemented!() }\n").len(), 1);
        assert_eq!(findings("a.rs", "//!\n\nunsafe fn f() {}\n")[0].split(": ").next(), Some("a.rs:3"));
        assert!(findings("b/raw.rs", "//!\nunsafe fn f() {}\n").is_empty());
    }

    #[test]
    fn a_long_file_must_say_why() {
        let long = format!("//!\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(findings("a.rs", &long).len(), 1);
        assert!(findings("a.rs", &format!("{long}// Long because: a table.\n")).is_empty());
    }

    #[test]
    fn raw_is_a_module_name_not_a_substring() {
        assert!(is_raw("src/raw.rs") && is_raw("src/raw/mman.rs"));
        assert!(!is_raw("src/draw.rs") && !is_raw("src/rawhide/x.rs"));
    }
}
