//! Words of the command line as users of gVisor type them, in the form that the grammar has.
//!
//! Go's flags have one dash or two (`-root`), while ours of one dash are single letters that may be written
//! together (`-it`). So one dash before the name of a flag becomes two. Only before what is run in a
//! container: its words are its own.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// The words with two dashes before every long name.
pub(crate) fn canonical(grammar: &Command, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.into_iter();
    let mut all: Vec<OsString> = words.by_ref().take(1).collect();
    let mut reader = Reader { grammar, command: None, value_of_flag: false, own: false };
    all.extend(words.map(|word| reader.read(word)));
    all
}

struct Reader<'a> {
    grammar: &'a Command,
    command: Option<&'a Command>,
    /// The word is the value of the flag before it.
    value_of_flag: bool,
    /// From here on all words are those of the program in the container.
    own: bool,
}

impl Reader<'_> {
    fn read(&mut self, word: OsString) -> OsString {
        if self.own || std::mem::take(&mut self.value_of_flag) {
            return word;
        }
        let Some(text) = word.to_str() else { return word };
        let Some(flag) = text.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            self.positional(text);
            return word;
        };
        if flag == "-" {
            self.own = true;
            return word;
        }
        let (name, has_value) = match flag.trim_start_matches('-').split_once('=') {
            Some((name, _)) => (name, true),
            None => (flag.trim_start_matches('-'), false),
        };
        match self.find(name, flag.starts_with('-')) {
            Some((arg, long)) => {
                self.value_of_flag = !has_value && takes_next(arg);
                let one_dash = long && !flag.starts_with('-');
                if one_dash { OsString::from(format!("-{text}")) } else { word }
            }
            None => word,
        }
    }

    /// The flag of that name, and whether it is a long one.
    fn find(&self, name: &str, two_dashes: bool) -> Option<(&Arg, bool)> {
        let arguments = || self.command.into_iter().chain([self.grammar]).flat_map(Command::get_arguments);
        let also = |arg: &Arg| arg.get_all_aliases().is_some_and(|all| all.contains(&name));
        let long = arguments().find(|arg| arg.get_long() == Some(name) || also(arg));
        // A single letter is a short one, if there is such a one.
        let letter = name.chars().last().filter(|_| !two_dashes);
        let short = || arguments().find(|arg| letter.is_some() && arg.get_short() == letter);
        long.map(|arg| (arg, true)).or_else(|| short().map(|arg| (arg, false)))
    }

    fn positional(&mut self, text: &str) {
        match self.command {
            None => self.command = self.grammar.find_subcommand(text),
            // Behind the first one may be the words of a program, if there can be any.
            Some(command) => {
                let trailing = |arg: &Arg| arg.is_trailing_var_arg_set();
                self.own = command.get_positionals().any(trailing);
            }
        }
    }
}

/// Whether the value of a flag is the next word when it is not behind a `=`.
fn takes_next(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use crate::cli::Cli;
    use clap::CommandFactory;
    use std::ffi::OsString;

    fn check(words: &str, want: &str) {
        let grammar = Cli::command();
        let words = words.split(' ').map(OsString::from);
        let got = canonical(&grammar, words);
        let got: Vec<_> = got.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(got.join(" "), want);
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        check("runsc -root /r -debug=true list -quiet", "runsc --root /r --debug=true list --quiet");
        check("runsc create -bundle /b one", "runsc create --bundle /b one");
        check("runsc run -bundle=/b -d one", "runsc run --bundle=/b -d one");
        check("runsc install -config_file=/c -clobber", "runsc install --config_file=/c --clobber");
        check("runsc --log -root list", "runsc --log -root list");
    }

    #[test]
    fn letters_and_words_of_programs_stay() {
        check("runsc exec -ti one ls -root -debug", "runsc exec -ti one ls -root -debug");
        check("runsc exec -u 1:2 -cwd / one -debug", "runsc exec -u 1:2 --cwd / one -debug");
        check("runsc do -- -root", "runsc do -- -root");
        check("runsc do ls -debug", "runsc do ls -debug");
        check("runsc kill -all one 9", "runsc kill --all one 9");
    }
}
