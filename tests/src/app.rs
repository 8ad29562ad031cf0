//! Apps: scripts that use real programs, whose output and exit status must be the same in a sandbox.
//!
//! An app is a file of `tests/apps/`; its ending says who runs it. The comment at its top says, a line
//! each: `needs: PROGRAM...` (without one of them it is skipped), `limit: SECONDS` (60 when absent). It runs
//! in an empty directory, and must print nothing that may differ between two runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Interpreters by ending; those of the system, not others that may stand before them in a path.
const INTERPRETERS: &[(&str, &str)] = &[
    ("sh", "/bin/bash"),
    ("busybox", "/bin/busybox"),
    ("py", "/usr/bin/python3"),
    ("pl", "/usr/bin/perl"),
    ("js", "/usr/bin/node"),
];

/// The usual limit, in seconds.
const LIMIT: u64 = 60;

/// Where programs are looked for.
const FOLDERS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/lib"];

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct App {
    /// The file's name without its ending.
    pub name: String,
    /// Interpreter, arguments of it, and the file.
    pub words: Vec<PathBuf>,
    /// Programs it needs beside the interpreter.
    pub needs: Vec<String>,
    /// When it is killed.
    pub limit: Duration,
}

/// The folder of apps and of what they read.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps")
}

/// All apps, by name.
///
/// # Errors
/// The folder or one of its files cannot be read.
pub fn apps() -> io::Result<Vec<App>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if let Some((_, interpreter)) = INTERPRETERS.iter().find(|(known, _)| *known == ending) {
            all.push(App::read(&path, interpreter, &std::fs::read_to_string(&path)?));
        }
    }
    all.sort();
    Ok(all)
}

impl App {
    fn read(path: &Path, interpreter: &str, text: &str) -> Self {
        let field = |name: &str| {
            let mut top = text.lines().take_while(|line| line.starts_with(['#', '/']));
            top.find_map(|line| line.trim_start_matches(['#', '/', ' ']).strip_prefix(name)).map(str::trim)
        };
        let needs = field("needs:").unwrap_or_default().split_whitespace().map(str::to_owned);
        let limit = field("limit:").and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT);
        let mut words = vec![PathBuf::from(interpreter)];
        if interpreter.ends_with("busybox") {
            words.push("sh".into());
        }
        words.push(path.to_owned());
        Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            words,
            needs: needs.collect(),
            limit: Duration::from_secs(limit),
        }
    }

    /// The first program it needs that is not there.
    pub fn missing(&self) -> Option<String> {
        let interpreter = self.words.first().filter(|path| !path.exists());
        let there = |program: &String| FOLDERS.iter().any(|folder| Path::new(folder).join(program).exists());
        interpreter
            .map(|path| path.display().to_string())
            .or_else(|| self.needs.iter().find(|program| !there(program)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{App, apps};

    #[test]
    fn the_top_of_a_file_is_read() {
        let app = App::read(
            Path::new("/x/a.sh"),
            "/bin/bash",
            "# About.\n# needs: true nosuch\n# limit: 5\nfalse\n# limit: 9\n",
        );
        assert_eq!((app.name.as_str(), app.limit), ("a", Duration::from_secs(5)));
        assert_eq!(app.missing().as_deref(), Some("nosuch"));
        let app = App::read(Path::new("/x/b.busybox"), "/bin/true-busybox", "echo\n");
        assert_eq!((app.words.len(), app.limit), (3, Duration::from_secs(60)));
        assert_eq!(app.missing().as_deref(), Some("/bin/true-busybox"));
    }

    #[test]
    fn names_are_told_apart() {
        let all = apps().expect("the folder can be read");
        assert!(all.windows(2).all(|pair| pair[0].name != pair[1].name));
    }
}
