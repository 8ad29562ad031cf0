//! The command line, in the form that containerd's shims share: flags as Go's programs have them, then an action.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Print the version.
    Version,
    /// Print what this runtime is, for containerd's introspection.
    Info,
    /// Print the address of the shim for a container; make the shim if there is none.
    Start,
    /// Remove what a dead shim has left of a container.
    Delete,
    /// Be a shim; only `start` starts one.
    Serve,
}

/// The words of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) action: Action,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The container.
    pub(crate) id: String,
    /// Socket of containerd's main API.
    pub(crate) address: String,
    /// Directory of the container's bundle; without it the working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// Log in detail.
    pub(crate) debug: bool,
}

impl Args {
    /// Reads the words after the program's name.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut args = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: None,
            debug: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                args.action = action(&word)?;
                break;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let switch = || value.as_deref().is_none_or(|value| matches!(value, "1" | "t" | "true"));
            match name {
                "v" => args.action = Action::Version,
                "info" => args.action = Action::Info,
                "debug" => args.debug = switch(),
                _ => {
                    let value = value.clone().or_else(|| words.next());
                    args.set(name, value.with_context(|| format!("-{name} needs a value"))?)?;
                }
            }
            if matches!(args.action, Action::Version | Action::Info) {
                return Ok(args);
            }
        }
        args.check()
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = Some(value.into()),
            // For events, which we send ourselves; the socket is handed over.
            "publish-binary" | "socket" => {}
            _ => bail!("unknown flag -{name}"),
        }
        Ok(())
    }

    fn check(self) -> Result<Self> {
        for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            // They become parts of paths.
            if value.is_empty() || value.contains('/') || value.starts_with('.') {
                bail!("-{name} {value:?}: not a name");
            }
        }
        Ok(self)
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "serve" => Ok(Action::Serve),
        _ => bail!("unknown action {word:?}: start or delete"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Args};

    fn parse(line: &str) -> anyhow::Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_containerd_writes_is_understood() {
        let args = parse(
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id one -debug start",
        )
        .expect("good");
        assert_eq!((args.action, args.id.as_str(), args.debug), (Action::Start, "one", true));
        let args = parse("--namespace=a --id=b -debug=false -bundle /b delete").expect("good");
        assert_eq!((args.action, args.bundle, args.debug), (Action::Delete, Some("/b".into()), false));
        assert_eq!(parse("-v").expect("good").action, Action::Version);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("-id one start", "namespace"),
            ("-namespace a -id ../b start", "../b"),
            ("-namespace a -id b -frob c start", "frob"),
            ("-namespace a -id b stop", "stop"),
            ("-namespace", "namespace"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
