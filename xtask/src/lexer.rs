//! Just enough of Rust's lexical grammar to look for a word in *code*.
//!
//! [`code_only`] blanks comments and the insides of string and character literals, and keeps every
//! newline, so that a search for `unsafe` does not trip over prose and line numbers stay true.

/// `source` with comments and literals replaced by spaces, newlines kept.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match (chars[at], next) {
        ('/', Some('/')) => line_end(chars, at),
        ('/', Some('*')) => block_comment_end(chars, at),
        ('"', _) => string_end(chars, at),
        ('r', Some('"' | '#')) if !continues_word(chars, at) => raw_string_end(chars, at),
        ('\'', _) => char_end(chars, at),
        _ => at,
    }
}

/// Whether the character before `at` belongs to the same word (`br"…"` is caught by its `r`).
fn continues_word(chars: &[char], at: usize) -> bool {
    match at.checked_sub(1).map(|i| chars[i]) {
        Some('b' | 'c') => at.checked_sub(2).is_some_and(|i| is_word(chars[i])),
        Some(c) => is_word(c),
        None => false,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
}

/// Block comments nest in Rust.
fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0usize;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at; // `r#ident`
    }
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|h| chars.get(i + h) == Some(&'#'));
    (open + 1..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes)
}

/// A character literal, or `at` for a lifetime.
fn char_end(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let close = (at + 3..chars.len()).find(|&i| chars[i] == '\'');
        return close.map_or(chars.len(), |i| i + 1);
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { at }
}

/// The lines (from 1) of `code` on which `word` stands as a whole word followed by `suffix`.
pub(crate) fn lines_with_word(code: &str, word: &str, suffix: &str) -> Vec<usize> {
    let stands = |line: &str| {
        line.match_indices(word).any(|(i, _)| {
            let before = line[..i].chars().next_back();
            let after = &line[i + word.len()..];
            !before.is_some_and(is_word)
                && !after.chars().next().is_some_and(is_word)
                && after.starts_with(suffix)
        })
    };
    code.lines().enumerate().filter(|(_, line)| stands(line)).map(|(i, _)| i + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::{code_only, lines_with_word};

    fn found(source: &str) -> Vec<usize> {
        lines_with_word(&code_only(source), "unsafe", "")
    }

    #[test]
    fn prose_and_literals_are_not_code() {
        assert!(found("// unsafe\n/* unsafe /* unsafe */ unsafe */\n").is_empty());
        assert!(found(r##"let a = "unsafe \" unsafe"; let b = r#"un " unsafe"#;"##).is_empty());
        assert!(found("#![forbid(unsafe_code)]").is_empty());
    }

    #[test]
    fn code_is_found_on_its_line() {
        assert_eq!(found("//\nfn a<'a>(x: &'a u8) {}\nlet q = '\"'; unsafe { b() }\n"), [3]);
        assert_eq!(found("let x = '\\''; unsafe {}"), [1]);
        assert_eq!(found("let x = br\"z\";\nunsafe {}"), [2]);
    }

    #[test]
    fn a_suffix_tells_a_macro_from_a_name() {
        assert_eq!(lines_with_word("todo!()\nlet todo = 1;", "todo", "!"), [1]);
    }
}
