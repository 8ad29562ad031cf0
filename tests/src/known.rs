//! The lists of known failures: what a platform is known to lose, and the judge that holds it to its list.
//!
//! A list is a text file, `known-failures/PLATFORM.txt`, with a line a failure:
//!
//! ```text
//! guest/process: WNOWAIT leaves it  # waitid(2) is missing
//! apps/node-workers: (same output)  # sometimes: loses a wake-up under load
//! ```
//!
//! It may only shrink. A failure that is not listed fails the run, and so does a listed one that no longer
//! fails, or whose assertion no longer exists. `sometimes:` marks the few that are lost only now and then;
//! they are counted, and never fail the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Set to rewrite the list from what is seen, instead of judging by it.
pub const BLESS: &str = "RAMPART_BLESS";

const SOMETIMES: &str = "sometimes:";

/// Longest reason that is written into a list, in characters.
const REASON: usize = 180;

/// A failure by its name: the case that asserts, and what it asserts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `guest/process`.
    pub case: String,
    /// As the program prints it, or a phrase of the harness in parentheses.
    pub assertion: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.case, self.assertion)
    }
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The list.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line is not `CASE: ASSERTION  # REASON`, or stands twice.
    #[error("{}:{line}: not `CASE: ASSERTION  # REASON`, or there twice", path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// The entries of a list: each with its reason.
type Entries = BTreeMap<Key, String>;

fn parse(text: &str) -> Result<Entries, usize> {
    let mut entries = Entries::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = entry(line).ok_or(index + 1)?;
        if entries.insert(entry.0, entry.1).is_some() {
            return Err(index + 1);
        }
    }
    Ok(entries)
}

fn entry(line: &str) -> Option<(Key, String)> {
    let (key, reason) = line.split_once(" # ")?;
    let (case, assertion) = key.split_once(": ")?;
    let (case, assertion, reason) = (case.trim(), assertion.trim(), reason.trim());
    let whole = ![case, assertion, reason].contains(&"");
    whole.then(|| (Key { case: case.into(), assertion: assertion.into() }, reason.to_owned()))
}

/// Judges what is seen by a list.
#[derive(Debug)]
pub struct Judge {
    path: PathBuf,
    /// Of the cases of this run's kind only.
    listed: Entries,
    /// Of other kinds: kept as they are.
    others: Entries,
    header: String,
    kind: String,
    seen: BTreeSet<Key>,
    /// What failed, with what is known of it: the next list.
    lost: Entries,
    /// What held.
    pub passed: usize,
    /// What failed as the list says.
    pub known: usize,
    /// What must be changed: in the code, or in the list.
    pub complaints: Vec<String>,
}

impl Judge {
    /// A judge of cases named `KIND/...` on `platform`.
    ///
    /// # Errors
    /// The list cannot be read, or has a line that says nothing.
    pub fn new(platform: &str, kind: &str) -> Result<Self, ListError> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("known-failures");
        let path = folder.join(format!("{platform}.txt"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ListError::File { path, source }),
        };
        Self::of_text(path.clone(), kind, &text).map_err(|line| ListError::Line { path, line })
    }

    fn of_text(path: PathBuf, kind: &str, text: &str) -> Result<Self, usize> {
        let prefix = format!("{kind}/");
        let (listed, others) = parse(text)?.into_iter().partition(|(key, _)| key.case.starts_with(&prefix));
        let header = text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n"));
        Ok(Self {
            path,
            listed,
            others,
            header: header.collect(),
            kind: prefix,
            seen: BTreeSet::new(),
            lost: Entries::new(),
            passed: 0,
            known: 0,
            complaints: Vec::new(),
        })
    }

    /// Something held.
    pub fn holds(&mut self, case: &str, assertion: &str) {
        let key = self.key(case, assertion);
        match self.listed.get(&key) {
            Some(reason) if reason.starts_with(SOMETIMES) => {
                self.passed += 1;
                self.lost.insert(key, reason.clone());
            }
            Some(_) => self.complaints.push(format!("{key}\n    holds now: take it off the list")),
            None => self.passed += 1,
        }
    }

    /// Something failed, and `why` as far as can be seen.
    pub fn fails(&mut self, case: &str, assertion: &str, why: &str) {
        let key = self.key(case, assertion);
        match self.listed.get(&key) {
            Some(reason) => {
                self.known += 1;
                self.lost.insert(key, reason.clone());
            }
            None => {
                self.complaints.push(format!("{key}\n    failed: {why}"));
                self.lost.insert(key, as_reason(why));
            }
        }
    }

    /// A case could not be tried here: its lines stay.
    pub fn skips(&mut self, case: &str) {
        let case = format!("{}{case}", self.kind);
        let lines = self.listed.iter().filter(|(key, _)| key.case == case);
        for (key, reason) in lines {
            self.seen.insert(key.clone());
            self.lost.insert(key.clone(), reason.clone());
        }
    }

    /// To be called at the end: complains of lines about nothing, and rewrites the list when
    /// [`BLESS`] is set.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn finish(&mut self) -> Result<(), ListError> {
        for key in self.listed.keys().filter(|key| !self.seen.contains(key)) {
            self.complaints.push(format!("{key}\n    is asserted nowhere: take it off the list"));
        }
        if std::env::var_os(BLESS).is_none() {
            return Ok(());
        }
        std::fs::write(&self.path, self.next_list())
            .map_err(|source| ListError::File { path: self.path.clone(), source })?;
        self.complaints.clear();
        Ok(())
    }

    fn next_list(&self) -> String {
        let mut all: Vec<_> = self.lost.iter().chain(&self.others).collect();
        all.sort();
        let line = |(key, reason): (&Key, &String)| format!("{key}  # {reason}\n");
        format!("{}\n{}", self.header, all.into_iter().map(line).collect::<String>())
    }

    fn key(&mut self, case: &str, assertion: &str) -> Key {
        let key = Key { case: format!("{}{case}", self.kind), assertion: assertion.to_owned() };
        self.seen.insert(key.clone());
        key
    }
}

/// The beginning of `why`, for a list.
fn as_reason(why: &str) -> String {
    let line = why.lines().next().unwrap_or_default().trim();
    let short: String = line.chars().take(REASON).collect();
    if short.is_empty() { "cause unknown".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::{Judge, parse};

    const LIST: &str = "# About.\n\nguest/a: x: y  # no reason\nguest/a: now and then  # sometimes: load\napps/b: z  # why\n";

    fn judge() -> Judge {
        Judge::of_text("list".into(), "guest", LIST).expect("a good list")
    }

    #[test]
    fn a_line_without_a_reason_or_there_twice_is_refused() {
        assert_eq!(parse(LIST).map(|entries| entries.len()), Ok(3));
        for bad in ["guest/a: x", "guest/a # why", "guest/a: x # ", "g/a: x  # y\ng/a: x  # y"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_list_may_only_shrink() {
        let mut judge = judge();
        judge.fails("a", "x: y", "");
        judge.fails("a", "now and then", "");
        assert!(judge.finish().is_ok() && judge.complaints.is_empty());
        assert_eq!((judge.known, judge.passed), (2, 0));
        judge.fails("a", "new", "EIO");
        assert_eq!(judge.complaints.len(), 1, "a new failure");
        judge.holds("a", "x: y");
        assert_eq!(judge.complaints.len(), 2, "a listed one that holds");
        judge.holds("a", "now and then");
        judge.holds("a", "never listed");
        assert_eq!((judge.complaints.len(), judge.passed), (2, 2));
    }

    #[test]
    fn a_line_about_nothing_is_a_complaint_unless_its_case_was_skipped() {
        let mut one = judge();
        assert!(one.finish().is_ok());
        assert_eq!(one.complaints.len(), 2);
        let mut other = judge();
        other.skips("a");
        assert!(other.finish().is_ok());
        assert!(other.complaints.is_empty(), "{:?}", other.complaints);
    }

    #[test]
    fn the_next_list_has_what_fails_and_what_others_listed() {
        let mut judge = judge();
        judge.fails("a", "x: y", "ignored");
        judge.fails("a", "new", "EIO\nmore");
        let text = "# About.\n\napps/b: z  # why\nguest/a: new  # EIO\nguest/a: x: y  # no reason\n";
        assert_eq!(judge.next_list(), text);
    }
}
