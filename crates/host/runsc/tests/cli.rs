//! The command line on bad input, and its handling of the state directory.

use std::path::Path;
use std::process::{Command, Output};

fn runsc(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runsc"));
    command.arg("--root").arg(root).args(arguments).output().expect("runsc")
}

/// Fails with status 1 and one line that contains `word`.
fn refuses(root: &Path, arguments: &[&str], word: &str) {
    let output = runsc(root, arguments);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.contains(word), "{arguments:?}: {text:?} does not name {word:?}");
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("mkdir");
    dir
}

#[test]
fn bad_input_is_named_in_one_line() {
    let root = scratch("bad");
    refuses(&root, &[], "command");
    refuses(&root, &["frobnicate"], "frobnicate");
    refuses(&root, &["list", "--bogus"], "--bogus");
    refuses(&root, &["state"], "ID");
    refuses(&root, &["state", "ghost"], "ghost");
    refuses(&root, &["state", "../x"], "../x");
    refuses(&root, &["kill", "ghost", "NOPE"], "NOPE");
    refuses(&root, &["exec", "ghost"], "COMMAND");
    refuses(&root, &["do"], "COMMAND");
    refuses(&root, &["do", "--nosuch", "true"], "--nosuch");
    refuses(&root, &["do", "--rootfs", "/no/such", "true"], "/no/such");
    refuses(&root, &["do", "-v", "/a", "true"], "/a");
    refuses(&root, &["do", "-v", "/no/such:/b", "true"], "/no/such");
    refuses(&root, &["create", "--bundle", "/no/such", "one"], "/no/such");
    refuses(&root, &["delete", "ghost"], "ghost");
    refuses(&root, &["help", "ghost"], "ghost");
    refuses(&root, &["--log-format", "xml", "list"], "xml");
    refuses(&root, &["--log", "/no/such/log", "list"], "/no/such/log");
    refuses(&root, &["--platform", "moon", "do", "true"], "moon");
    std::fs::remove_dir_all(root).expect("clean");
}

#[test]
fn a_template_is_a_bundle_and_a_failed_create_leaves_nothing() {
    let dir = scratch("create");
    let (bundle, root) = (dir.join("bundle"), dir.join("state"));
    std::fs::create_dir_all(bundle.join("rootfs")).expect("mkdir");
    let path = bundle.to_str().expect("UTF-8");
    assert!(runsc(&root, &["spec", "--bundle", path]).status.success());
    refuses(&root, &["spec", "--bundle", path], "config.json");
    // The template's process has a terminal, and nobody to hold its other end.
    refuses(&root, &["create", "--bundle", path, "one"], "--console-socket");
    refuses(&root, &["create", "--bundle", path, "a/b"], "a/b");
    assert!(runsc(&root, &["list", "-q"]).stdout.is_empty());
    assert!(runsc(&root, &["delete", "--force", "one"]).status.success());
    std::fs::remove_dir_all(dir).expect("clean");
}

#[test]
fn version_and_help_succeed() {
    let root = scratch("help");
    for flag in ["--version", "--help"] {
        let output = runsc(&root, &[flag]);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).expect("UTF-8").contains("runsc"));
    }
    let output = runsc(&root, &["help", "syscalls"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.lines().any(|line| line.starts_with("39 ") && line.contains("getpid")), "{text}");
    let output = runsc(&root, &["help", "syscalls", "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(text.lines().count() - 1));
    let output = runsc(&root, &["help", "exec"]);
    assert!(String::from_utf8(output.stdout).expect("UTF-8").contains("--process"));
    std::fs::remove_dir_all(root).expect("clean");
}
