//! `#!` lines (`execve(2)`, "Interpreter scripts").

use std::sync::Arc;

use crate::file::read_full;
use crate::{Arguments, ExecFile, LoadError, Opener};

/// Bytes at the start of a file that decide what it is (`BINPRM_BUF_SIZE`).
pub(crate) const HEAD: usize = 256;
/// Interpreters of interpreters that are followed.
const MAX_DEPTH: usize = 5;

/// A program to be loaded, behind all scripts.
pub struct Program {
    /// The ELF file; `/proc/PID/exe`, and what decides the new credentials.
    pub file: Arc<dyn ExecFile>,
    /// Arguments, with what interpreters put in front.
    pub args: Arguments,
    /// The path `execve` was given (`AT_EXECFN`); its last component names the task.
    pub filename: Vec<u8>,
    /// The first [`HEAD`] bytes, zero-padded.
    pub(crate) head: [u8; HEAD],
}

impl Program {
    /// The task's new name: the last component of the path, up to 15 bytes (`TASK_COMM_LEN`).
    pub fn command(&self) -> Vec<u8> {
        let name = self.filename.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.iter().take(15).copied().collect()
    }
}

/// Follows `#!` lines from `file`, which `execve` was given as `filename`.
///
/// # Errors
/// `ENOEXEC`, `ELOOP`, `E2BIG`, and what opening or reading an interpreter says.
pub fn resolve(
    file: Arc<dyn ExecFile>,
    filename: Vec<u8>,
    mut args: Arguments,
    opener: &dyn Opener,
) -> Result<Program, LoadError> {
    if args.argv.is_empty() {
        // A program always has an argv[0], if an empty one.
        args.push_arg(Vec::new())?;
    }
    args.take_room(&filename)?;
    let (mut file, mut path) = (file, filename.clone());
    for _ in 0..=MAX_DEPTH {
        let mut head = [0; HEAD];
        read_full(file.as_ref(), 0, &mut head)?;
        if !head.starts_with(b"#!") {
            return Ok(Program { file, args, filename, head });
        }
        let line = parse_line(&head).ok_or(LoadError::NotExecutable)?;
        let mut front = vec![line.interpreter.to_vec()];
        front.extend(line.argument.map(<[u8]>::to_vec));
        front.push(path);
        args.replace_first(front)?;
        path = line.interpreter.to_vec();
        file = opener.open(&path)?;
    }
    Err(LoadError::TooDeep)
}

#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    interpreter: &'a [u8],
    argument: Option<&'a [u8]>,
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn ends_word(byte: &u8) -> bool {
    is_blank(byte) || *byte == 0
}

/// Reads the first line of a script; `None` when it names no interpreter, or when that may be cut off.
fn parse_line(head: &[u8; HEAD]) -> Option<Line<'_>> {
    let text = head.get(2..)?;
    let line = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => text.get(..end)?,
        None => {
            // The line is longer than the buffer (or the file ends without a newline, and zeros follow):
            // good enough when the interpreter's own name is complete.
            let text = text.get(..text.len() - 1)?;
            let name = text.iter().position(|byte| !is_blank(byte))?;
            text.get(name..)?.iter().any(ends_word).then_some(text)?
        }
    };
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let end = line.iter().rposition(|byte| !is_blank(byte))? + 1;
    let line = line.get(start..end)?;
    let name_end = line.iter().position(ends_word).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at_checked(name_end)?;
    if interpreter.is_empty() {
        return None;
    }
    // All the rest is one argument; it ends at a NUL as any string.
    let argument = rest.first().filter(|byte| is_blank(byte)).and_then(|_| {
        let start = rest.iter().position(|byte| !is_blank(byte))?;
        let text = rest.get(start..)?;
        text.split(|byte| *byte == 0).next().filter(|text| !text.is_empty())
    });
    Some(Line { interpreter, argument })
}

#[cfg(test)]
mod tests {
    use super::{HEAD, Line, parse_line};

    fn parse(text: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut head = [0; HEAD];
        let n = text.len().min(HEAD);
        head[..n].copy_from_slice(&text[..n]);
        parse_line(&head)
            .map(|Line { interpreter, argument }| (interpreter.to_vec(), argument.map(<[u8]>::to_vec)))
    }

    #[test]
    fn a_line_names_an_interpreter_and_one_argument() {
        let sh = |arg: Option<&str>| Some((b"/bin/sh".to_vec(), arg.map(|a| a.as_bytes().to_vec())));
        assert_eq!(parse(b"#!/bin/sh\necho"), sh(None));
        assert_eq!(parse(b"#! \t/bin/sh \t\n"), sh(None));
        assert_eq!(parse(b"#!/bin/sh -e  -u \n"), sh(Some("-e  -u")));
        assert_eq!(parse(b"#!/bin/sh"), sh(None));
        assert_eq!(parse(b"#!/bin/sh -x"), sh(Some("-x")));
    }

    #[test]
    fn a_line_without_an_interpreter_is_none() {
        assert_eq!(parse(b"#!\n/bin/sh"), None);
        assert_eq!(parse(b"#!   \t \n"), None);
        assert_eq!(parse(&[b"#!/".as_slice(), &[b'x'; 300]].concat()), None, "cut off");
        let long = [b"#!/bin/sh ".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(parse(&long).unwrap().1.unwrap().len(), HEAD - 1 - 10);
    }
}
