//! Command lines as engines write them, and what they read of the answers.

mod kit;

use std::io::Read;
use std::os::fd::OwnedFd;

use kit::{Bundle, until};
use serde_json::Value;

/// Reads descriptor 3 and ends with the byte it got.
const READ: &str = "mov $0,%eax\nmov $3,%edi\nlea -8(%rsp),%rsi\nmov $1,%edx\nsyscall\n\
                    movzbl -8(%rsp),%edi\nmov $231,%eax\nsyscall\n";

fn pausing() -> Bundle {
    let bundle = Bundle::new(&["pause"]);
    bundle.root.assemble("pause", kit::PAUSE);
    bundle.root.assemble("read", READ);
    bundle
}

#[test]
fn an_error_is_in_the_log_as_engines_look_for_it() {
    let bundle = pausing();
    bundle.change(|spec| spec["process"]["args"] = serde_json::json!(["missing"]));
    let (log, state) = (bundle.path().join("log.json"), bundle.path().join("state"));
    let (log, state) = (log.to_str().expect("UTF-8"), state.to_str().expect("UTF-8"));
    let path = bundle.path().to_str().expect("UTF-8");
    let line = [
        "--root",
        state,
        "--log",
        "/dev/null",
        "--log",
        log,
        "--log-format",
        "json",
        "create",
        "--bundle",
        path,
        "one",
    ];
    let (code, _, text) = bundle.run(&line);
    assert!(code == Some(1) && text.contains("executable file not found in $PATH"), "{text}");
    let text = std::fs::read_to_string(log).expect("a log");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON a line")).collect();
    let last = lines.iter().rfind(|line| line["level"] == "error").expect("an error");
    assert!(last["msg"].as_str().is_some_and(|text| text.contains("\"missing\": executable file not found")));
    assert!(last["time"].is_string());
}

#[test]
fn descriptors_are_preserved() {
    let bundle = pausing();
    bundle.change(|spec| spec["process"]["args"] = serde_json::json!(["read"]));
    let (theirs, mut ours) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut ours, b"*").expect("room");
    // The first descriptor that a program inherits beside the standard ones, by way of a shell.
    let command = bundle.command(&["run", "--preserve-fds", "1", "one"]);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "exec \"$@\" 3<&0 0</dev/null", "sh"]).args(words);
    let status = shell.current_dir(bundle.path()).stdin(OwnedFd::from(theirs)).status().expect("runs");
    assert_eq!(status.code(), Some(42));
}

#[test]
fn limits_and_statistics() {
    let bundle = pausing();
    bundle.leave(&["run", "-d", "one"]);
    let stats: Value = serde_json::from_str(&bundle.good(&["events", "--stats", "one"])).expect("JSON");
    assert_eq!((&stats["type"], &stats["id"]), (&Value::from("stats"), &Value::from("one")));
    assert_eq!(stats["data"]["pids"]["current"], 1);
    bundle.good(&["update", "--pids-limit", "1", "one"]);
    let (code, _, text) = bundle.run(&["exec", "one", "pause"]);
    assert!(code == Some(1) && text.contains("EAGAIN"), "{text}");
    let (code, _, text) = bundle.run(&["update", "--memory", "1000000", "one"]);
    assert!(code == Some(1) && text.contains("control groups"), "{text}");
    let mut events = bundle.command(&["events", "--interval", "100ms", "one"]);
    let mut events = events.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    bundle.good(&["kill", "one", "KILL"]);
    assert!(until("the end of events", || events.try_wait().expect("a child")).success());
    let mut text = String::new();
    events.stdout.take().expect("a pipe").read_to_string(&mut text).expect("UTF-8");
    assert!(text.lines().count() >= 1, "{text}");
}

#[test]
fn features_and_version_are_told() {
    let bundle = pausing();
    let features: Value = serde_json::from_str(&bundle.good(&["features"])).expect("JSON");
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    let version = bundle.good(&["--version"]);
    assert!(version.starts_with("runsc version ") && version.contains("\nspec: 1."), "{version}");
}
