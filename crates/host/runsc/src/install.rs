//! `runsc install` and `uninstall`: this program as a runtime of Docker, in the daemon's configuration.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

/// Most bytes of a configuration that are read.
const MAX_CONFIG: u64 = 1 << 20;
/// The list of runtimes in it.
const RUNTIMES: &str = "runtimes";

/// What both commands are told.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Configuration of the Docker daemon
    #[arg(long, alias = "config_file", default_value = "/etc/docker/daemon.json")]
    config_file: PathBuf,
    /// Name of the runtime
    #[arg(long, default_value = "runsc")]
    runtime: String,
}

/// Arguments of `install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    whom: Uninstall,
    /// Replace a runtime of that name which is not the same
    #[arg(long)]
    clobber: bool,
    /// Flags for every call of the runtime, behind a --
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs `install`. The daemon has to be told afterwards, by a restart or SIGHUP.
pub(crate) fn install(arguments: &Install) -> Result<u8> {
    let Uninstall { config_file, runtime } = &arguments.whom;
    let program = std::env::current_exe().context("the path of this program")?;
    let entry = json!({ "path": program, "runtimeArgs": arguments.arguments });
    change(config_file, |config| {
        let all = config.entry(RUNTIMES).or_insert_with(|| json!({}));
        let all = all.as_object_mut().context("\"runtimes\" is not an object")?;
        if all.get(runtime).is_some_and(|old| *old != entry) && !arguments.clobber {
            bail!("there is another runtime {runtime:?}: --clobber replaces it");
        }
        all.insert(runtime.clone(), entry);
        Ok(())
    })
}

/// Runs `uninstall`.
pub(crate) fn uninstall(arguments: &Uninstall) -> Result<u8> {
    change(&arguments.config_file, |config| {
        let Some(all) = config.get_mut(RUNTIMES).and_then(Value::as_object_mut) else { return Ok(()) };
        all.remove(&arguments.runtime);
        if all.is_empty() {
            config.remove(RUNTIMES);
        }
        Ok(())
    })
}

/// Changes a configuration, which need not be there; whoever reads it sees the old or the new one.
fn change(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<u8> {
    let mut config = read(path).with_context(|| format!("{path:?}"))?;
    change(&mut config).with_context(|| format!("{path:?}"))?;
    write(path, &Value::Object(config)).with_context(|| format!("{path:?}"))?;
    Ok(0)
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        file => file?.take(MAX_CONFIG).read_to_string(&mut text)?,
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(&text)? {
        Value::Object(config) => Ok(config),
        _ => bail!("not an object"),
    }
}

fn write(path: &Path, config: &Value) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mode = fs::metadata(path).map_or(0o644, |data| data.permissions().mode() & 0o777);
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
    let written =
        writeln!(file, "{config:#}").and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What matters is why it was not written.
        let _ = fs::remove_file(&new);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use super::{Install, Uninstall, install, read, uninstall};
    use serde_json::json;

    #[test]
    fn a_runtime_comes_and_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let config_file = dir.path().join("docker/daemon.json");
        let whom = || Uninstall { config_file: config_file.clone(), runtime: "r".into() };
        let with = |arguments: &[&str], clobber| Install {
            whom: whom(),
            clobber,
            arguments: arguments.iter().map(|&word| word.into()).collect(),
        };
        install(&with(&["--debug"], false)).expect("a new file");
        let found = read(&config_file).expect("JSON");
        assert_eq!(found["runtimes"]["r"]["runtimeArgs"], json!(["--debug"]));
        install(&with(&["--debug"], false)).expect("the same again");
        assert!(install(&with(&[], false)).is_err());
        install(&with(&[], true)).expect("told to");
        std::fs::write(&config_file, r#"{ "debug": true, "runtimes": { "r": {}, "other": {} } }"#)
            .expect("a file");
        uninstall(&whom()).expect("there");
        let found = read(&config_file).expect("JSON");
        assert_eq!(serde_json::Value::Object(found), json!({ "debug": true, "runtimes": { "other": {} } }));
        std::fs::write(&config_file, "[]").expect("a file");
        assert!(install(&with(&[], false)).is_err());
    }
}
