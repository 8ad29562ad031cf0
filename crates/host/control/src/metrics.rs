//! What a Sentry has counted.
//!
//! A Sentry may have been taken over by its guest: who shows its metrics beside others' asks [`Family::check`]
//! first. Values and the texts of labels can be lies all the same.

use serde::{Deserialize, Serialize};

/// Most families in one answer.
pub const MAX_FAMILIES: usize = 1024;
/// Most samples in one answer; there are fewer system calls, and unimplemented branches.
pub const MAX_SAMPLES: usize = 4096;
/// Longest name, and longest label, in bytes.
const MAX_NAME: usize = 64;
/// Longest explanation in bytes.
const MAX_HELP: usize = 256;

/// What the value of a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A count of events, which only grows.
    Counter,
    /// How many or how much there is now.
    Gauge,
}

/// A metric with all of its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Lower-case words with underscores between them.
    pub name: String,
    /// What is counted.
    pub help: String,
    /// What the values are.
    pub kind: Kind,
    /// What the samples are told apart by; without it there is one sample.
    pub label: Option<String>,
    /// The label's value, and the metric's.
    pub samples: Vec<(String, u64)>,
}

impl Family {
    /// One without a label.
    pub fn single(name: &str, help: &str, kind: Kind, value: u64) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            kind,
            label: None,
            samples: vec![(String::new(), value)],
        }
    }

    /// Whether it can be shown: the name and the label are names, and the explanation is one line of text.
    pub fn check(&self) -> bool {
        let single = self.label.is_some() || self.samples.len() == 1;
        let text = self.help.len() <= MAX_HELP && !self.help.chars().any(char::is_control);
        single && text && is_name(&self.name) && self.label.as_deref().is_none_or(is_name)
    }
}

/// Lower-case letters, digits and underscores behind a letter.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= MAX_NAME
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind};

    #[test]
    fn what_is_no_name_or_no_line_cannot_be_shown() {
        let good = Family::single("tasks_now", "how many tasks there are", Kind::Gauge, 3);
        assert!(good.check());
        for name in ["", "Tasks", "1st", "a b", "a{x=\"y\"}", &"a".repeat(65)] {
            assert!(!Family { name: name.into(), ..good.clone() }.check(), "{name:?}");
            assert!(!Family { label: Some(name.into()), ..good.clone() }.check(), "label {name:?}");
        }
        assert!(!Family { help: "two\nlines".into(), ..good.clone() }.check());
        assert!(!Family { samples: Vec::new(), ..good }.check());
    }
}
