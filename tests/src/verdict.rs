//! What a guest program said of its assertions.

use std::collections::BTreeMap;

use crate::run::Output;

/// The assertions of one run: their names, and whether they held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// By name; an assertion made twice holds when it always held.
    pub assertions: BTreeMap<String, bool>,
    /// The program ended by itself, with a status that fits what it said.
    pub complete: bool,
    /// The last one reported: where a program that did not end got stuck.
    pub last: Option<String>,
    /// Lines that are no assertions.
    pub other_lines: Vec<String>,
}

impl Verdict {
    /// Reads the output of a run.
    pub fn read(output: &Output) -> Self {
        let mut verdict = Self::of_text(&output.stdout);
        let code = output.status.and_then(|status| status.code());
        verdict.complete = code.is_some_and(|code| (code == 0) == verdict.failures().is_empty());
        verdict
    }

    fn of_text(stdout: &str) -> Self {
        let mut verdict = Self::default();
        for line in stdout.lines() {
            let (name, held) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                (None, None) => {
                    verdict.other_lines.push(line.to_owned());
                    continue;
                }
            };
            let name = bare(name, held);
            verdict.last = Some(name.to_owned());
            *verdict.assertions.entry(name.to_owned()).or_insert(true) &= held;
        }
        verdict
    }

    /// The assertions that did not hold.
    pub fn failures(&self) -> Vec<&str> {
        self.assertions.iter().filter(|(_, held)| !**held).map(|(name, _)| name.as_str()).collect()
    }
}

/// The name without the explanation: behind a `#`, or behind a colon when the assertion failed.
fn bare(name: &str, held: bool) -> &str {
    let name = match name.split_once(" # ") {
        Some((name, _)) => name,
        None if held => name,
        None => name.split(": ").next().unwrap_or(name),
    };
    name.trim()
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn lines_are_told_apart() {
        let verdict = Verdict::of_text("ok a: b # errno 0\nnoise\nnot ok b # errno 2\nok c\nnot ok c: why\n");
        assert_eq!(verdict.failures(), ["b", "c"]);
        assert_eq!(verdict.assertions.get("a: b"), Some(&true));
        assert_eq!(verdict.other_lines, ["noise"]);
        assert_eq!(verdict.last.as_deref(), Some("c"));
    }
}
