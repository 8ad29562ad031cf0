//! Containers that join the sandbox of another one.

mod kit;

use std::time::Duration;

use kit::{Bundle, gone, until};

/// Ends with 40 and its pid.
const NUMBER: &str = "mov $39,%eax\nsyscall\nmov %eax,%edi\nadd $40,%edi\nmov $231,%eax\nsyscall\n";

/// A pod's first container, running as `pod`, and the bundle of another one.
fn pod(args: &[&str]) -> (Bundle, Bundle) {
    let annotate = |bundle: &Bundle, kind: &str| {
        bundle.change(|spec| {
            spec["annotations"] = serde_json::json!({
                "io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod",
            });
        });
    };
    let (first, other) = (Bundle::new(&["pause"]), Bundle::new(args));
    first.root.assemble("pause", kit::PAUSE);
    other.root.assemble("pause", kit::PAUSE);
    other.root.assemble("number", NUMBER);
    annotate(&first, "sandbox");
    annotate(&other, "container");
    first.leave(&["create", "pod"]);
    first.good(&["start", "pod"]);
    (first, other)
}

fn pid(bundle: &Bundle, id: &str) -> i32 {
    bundle.state(id, "pid").as_i64().expect("a pid") as i32
}

fn create(first: &Bundle, other: &Bundle, id: &str) {
    first.leave(&["create", "--bundle", other.path().to_str().expect("UTF-8"), id]);
}

#[test]
fn a_container_joins_and_lives_by_itself() {
    let (first, other) = pod(&["pause"]);
    create(&first, &other, "one");
    assert_eq!(first.state("one", "status"), "created");
    assert_ne!(pid(&first, "one"), pid(&first, "pod"));
    first.good(&["start", "one"]);
    // In its own root, as the second process of its own pid namespace.
    assert_eq!(first.run(&["exec", "one", "number"]).0, Some(42));
    let (code, _, text) = first.run(&["exec", "pod", "number"]);
    assert!(code != Some(42) && text.contains("number"), "{text}");
    let listed = first.good(&["ps", "one"]);
    assert!(listed.lines().count() == 2 && listed.ends_with("pause\n"), "{listed}");
    let (code, _, text) = first.run(&["pause", "one"]);
    assert!(code == Some(1) && text.contains("pod"), "{text}");
    let stand = pid(&first, "one");
    first.good(&["kill", "one", "KILL"]);
    assert!(gone(stand, Duration::from_secs(10)));
    assert_eq!(first.state("one", "status"), "stopped");
    first.good(&["delete", "one"]);
    assert_eq!(first.state("pod", "status"), "running");
    assert_eq!(first.good(&["list", "-q"]), "pod\n");
}

#[test]
fn its_end_is_told() {
    let (first, other) = pod(&["number"]);
    create(&first, &other, "one");
    let waiter =
        first.command(&["wait", "one"]).stdout(std::process::Stdio::piped()).spawn().expect("starts");
    until("its question", || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", waiter.id())).ok()?;
        call.starts_with("47 ").then_some(())
    });
    first.good(&["start", "one"]);
    let told = String::from_utf8(waiter.wait_with_output().expect("ends").stdout).expect("UTF-8");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).expect("JSON")["exitStatus"], 41);
    until("the end", || (first.state("one", "status") == "stopped").then_some(()));
    // Another of the same name, which never runs.
    first.good(&["delete", "one"]);
    create(&first, &other, "one");
    first.good(&["delete", "--force", "one"]);
    assert_eq!(first.good(&["list", "-q"]), "pod\n");
}

#[test]
fn all_end_with_the_sandbox() {
    let (first, other) = pod(&["pause"]);
    create(&first, &other, "one");
    first.good(&["start", "one"]);
    create(&first, &other, "two");
    let stands = [pid(&first, "one"), pid(&first, "two")];
    first.good(&["kill", "pod", "KILL"]);
    for stand in stands {
        assert!(gone(stand, Duration::from_secs(10)));
    }
    for id in ["one", "two", "pod"] {
        until("the end", || (first.state(id, "status") == "stopped").then_some(()));
        first.good(&["delete", id]);
    }
    let (code, _, text) = first.run(&["create", "--bundle", other.path().to_str().expect("UTF-8"), "three"]);
    assert!(code == Some(1) && text.contains("pod"), "{text}");
    assert_eq!(first.good(&["list", "-q"]), "");
}
