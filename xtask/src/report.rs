//! Where xtask prints: one place, so that the lint against stray `println!` holds elsewhere.

use std::io::Write as _;

/// Writes a line to stdout at once. A closed stdout is not worth failing a chore for.
pub(crate) fn note(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
