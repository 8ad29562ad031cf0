//! Containers from `create` to `delete`.

mod kit;

use std::os::unix::net::UnixListener;
use std::time::Duration;

use kit::{Bundle, gone, until};

const EXIT: &str = "mov $231,%eax\nmov $42,%edi\nsyscall\n";

fn pausing() -> Bundle {
    let bundle = Bundle::new(&["pause"]);
    bundle.root.assemble("pause", kit::PAUSE);
    bundle.root.assemble("exit", EXIT);
    bundle
}

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let bundle = pausing();
    let pid_file = bundle.path().join("pid");
    bundle.leave(&["create", "--pid-file", pid_file.to_str().expect("UTF-8"), "one"]);
    assert_eq!(bundle.state("one", "status"), "created");
    assert_eq!(bundle.state("one", "annotations")["who"], "test");
    let pid = bundle.state("one", "pid").as_i64().expect("a pid") as i32;
    assert_eq!(std::fs::read_to_string(pid_file).expect("a pid file"), pid.to_string());
    let (code, _, text) = bundle.run(&["create", "one"]);
    assert!(code == Some(1) && text.contains("exists"), "{text}");
    let (code, _, text) = bundle.run(&["exec", "one", "exit"]);
    assert!(code == Some(1) && text.contains("created"), "{text}");
    bundle.good(&["start", "one"]);
    assert_eq!(bundle.state("one", "status"), "running");
    let (code, _, text) = bundle.run(&["delete", "one"]);
    assert!(code == Some(1) && text.contains("running"), "{text}");
    assert!(bundle.good(&["ps", "one"]).lines().any(|line| line.ends_with(" pause")));
    let waiter =
        bundle.command(&["wait", "one"]).stdout(std::process::Stdio::piped()).spawn().expect("starts");
    // It has asked when it receives (system call 47), and whoever has asked is told.
    until("its question", || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", waiter.id())).ok()?;
        call.starts_with("47 ").then_some(())
    });
    bundle.good(&["kill", "one", "KILL"]);
    let told = String::from_utf8(waiter.wait_with_output().expect("ends").stdout).expect("UTF-8");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told).expect("JSON")["exitStatus"], 137);
    assert!(gone(pid, Duration::from_secs(5)));
    assert_eq!(bundle.state("one", "status"), "stopped");
    assert_eq!(bundle.state("one", "pid"), 0);
    let (code, _, text) = bundle.run(&["kill", "one"]);
    assert!(code == Some(1) && text.contains("container not running"), "{text}");
    bundle.good(&["delete", "one"]);
    assert_eq!(bundle.good(&["list", "-q"]), "");
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let bundle = pausing();
    bundle.leave(&["create", "one"]);
    bundle.good(&["kill", "one", "TERM"]);
    until("the end", || (bundle.state("one", "status") == "stopped").then_some(()));
    bundle.good(&["delete", "one"]);
    bundle.leave(&["create", "two"]);
    let pid = bundle.state("two", "pid").as_i64().expect("a pid") as i32;
    bundle.good(&["delete", "two"]);
    assert!(gone(pid, Duration::ZERO));
}

#[test]
fn run_passes_the_exit_code_and_leaves_nothing() {
    let bundle = pausing();
    bundle.change(|spec| spec["process"]["args"] = serde_json::json!(["/bin/exit"]));
    let (code, out, text) = bundle.run(&["run", "one"]);
    assert_eq!((code, out.as_str(), text.as_str()), (Some(42), "", ""));
    assert_eq!(bundle.good(&["list", "-q"]), "");
    bundle.change(|spec| spec["process"]["args"] = serde_json::json!(["/bin/missing"]));
    let (code, _, text) = bundle.run(&["run", "one"]);
    assert!(code == Some(1) && text.contains("/bin/missing"), "{text}");
    let (code, _, text) = bundle.run(&["create", "one"]);
    assert!(code == Some(1) && text.contains("/bin/missing"), "{text}");
    assert_eq!(bundle.good(&["list", "-q"]), "");
}

#[test]
fn other_programs_run_beside_the_first() {
    let bundle = pausing();
    bundle.leave(&["run", "--detach", "one"]);
    assert_eq!(bundle.run(&["exec", "one", "exit"]).0, Some(42));
    let (code, _, text) = bundle.run(&["exec", "one", "missing"]);
    assert!(code == Some(1) && text.contains("missing"), "{text}");
    let process = bundle.path().join("process.json");
    let json = serde_json::json!({ "args": ["/bin/exit"], "cwd": "/", "user": { "uid": 1, "gid": 1 } });
    std::fs::write(&process, json.to_string()).expect("a file");
    let process = process.to_str().expect("UTF-8");
    assert_eq!(bundle.run(&["exec", "--process", process, "one"]).0, Some(42));
    // A detached one has a process of the host in its place, which passes signals on.
    let pid_file = bundle.path().join("pid");
    let arguments = ["exec", "--detach", "--pid-file", pid_file.to_str().expect("UTF-8"), "one", "pause"];
    bundle.leave(&arguments);
    let stand = std::fs::read_to_string(pid_file).expect("a pid file").parse().expect("a pid");
    assert_eq!(bundle.good(&["ps", "one"]).lines().count(), 3);
    kit::kill(stand, nix::sys::signal::Signal::SIGTERM as i32);
    assert!(gone(stand, Duration::from_secs(5)));
    until("its end", || (bundle.good(&["ps", "one"]).lines().count() == 2).then_some(()));
    bundle.good(&["delete", "--force", "one"]);
    assert_eq!(bundle.good(&["list", "-q"]), "");
}

#[test]
fn whoever_asks_gets_the_terminal() {
    let bundle = pausing();
    let write = "mov $1,%eax\nmov $1,%edi\nlea text(%rip),%rsi\nmov $6,%edx\nsyscall\n\
                 again: mov $34,%eax\nsyscall\njmp again\ntext: .ascii \"hello\\n\"\n";
    bundle.root.assemble("write", write);
    bundle.change(|spec| {
        spec["process"]["args"] = serde_json::json!(["write"]);
        spec["process"]["terminal"] = serde_json::json!(true);
    });
    let path = bundle.path().join("console");
    let listener = UnixListener::bind(&path).expect("a socket");
    bundle.leave(&["create", "--console-socket", path.to_str().expect("UTF-8"), "one"]);
    let (stream, _) = listener.accept().expect("a connection");
    let mut received =
        hostsys::file::receive_message(std::os::fd::AsFd::as_fd(&stream), &mut [0; 64]).expect("a message");
    let mut master = std::fs::File::from(received.fds.pop().expect("a terminal"));
    bundle.good(&["start", "one"]);
    let mut text = [0; 7];
    std::io::Read::read_exact(&mut master, &mut text).expect("output");
    assert_eq!(&text, b"hello\r\n");
    bundle.good(&["delete", "--force", "one"]);
}

#[test]
fn places_for_mounts_are_made_in_the_overlay_only() {
    let bundle = pausing();
    // access("/deep/er/file", F_OK): the code is 0 when it is there.
    let access = "mov $21,%eax\nlea path(%rip),%rdi\nxor %esi,%esi\nsyscall\nneg %eax\nmov %eax,%edi\n\
                  mov $231,%eax\nsyscall\npath: .asciz \"/deep/er/file\"\n";
    bundle.root.assemble("access", access);
    let file = bundle.path().join("config.json");
    bundle.change(|spec| {
        spec["process"]["args"] = serde_json::json!(["access"]);
        spec["root"]["readonly"] = serde_json::json!(true);
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.push(serde_json::json!({ "destination": "/deep/t", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(serde_json::json!({
            "destination": "/deep/er/file", "type": "bind", "source": file, "options": ["bind", "ro"],
        }));
    });
    let (code, _, text) = bundle.run(&["run", "one"]);
    assert_eq!((code, text.as_str()), (Some(0), ""));
    assert!(!bundle.root.path().join("deep").exists());
    let (code, _, text) = bundle.run(&["--overlay2", "none", "run", "one"]);
    // On a read-only root as well, which stays as it is.
    assert_eq!((code, text.as_str()), (Some(0), ""));
    assert!(!bundle.root.path().join("deep").exists());
}

/// Hooks leave their names in a file, with the status they were told.
#[test]
fn hooks_are_run_where_they_belong() {
    let bundle = pausing();
    let log = bundle.path().join("hooks");
    let hook = |name: &str| {
        let script =
            format!("/bin/grep -o '\"status\":\"[a-z]*\"' >> {0}; echo {name} >> {0}", log.display());
        serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    bundle.change(|spec| {
        spec["hooks"] = serde_json::json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    bundle.leave(&["create", "one"]);
    bundle.good(&["start", "one"]);
    bundle.good(&["delete", "--force", "one"]);
    let text = std::fs::read_to_string(&log).expect("a log").replace("\"status\":", "").replace('"', "");
    let told: Vec<&str> = text.lines().collect();
    let want =
        ["created", "prestart", "created", "createRuntime", "running", "poststart", "stopped", "poststop"];
    assert_eq!(told, want);
    bundle.change(|spec| {
        spec["hooks"]["createRuntime"] = serde_json::json!([{ "path": "/bin/false" }]);
    });
    let (code, _, text) = bundle.run(&["create", "one"]);
    assert!(code == Some(1) && text.contains("/bin/false"), "{text}");
    assert_eq!(bundle.good(&["list", "-q"]), "");
}

/// The directories of a group in all hierarchies that there are.
fn groups(name: &str) -> Vec<std::path::PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mounts =
        table.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| std::path::Path::new(mount).join(name)).filter(|group| group.is_dir()).collect()
}

#[test]
fn control_groups_hold_a_sandbox() {
    let name = format!("runsc-test-{}", std::process::id());
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer").join(&name);
    if !nix::unistd::geteuid().is_root() || std::fs::create_dir(&freezer).is_err() {
        // Not ours to make, or of version 2 only, where this layout does not apply.
        return;
    }
    std::fs::remove_dir(&freezer).expect("just made");
    let bundle = pausing();
    bundle.change(|spec| {
        spec["linux"] = serde_json::json!({
            "cgroupsPath": format!("/{name}"),
            "resources": { "memory": { "limit": 256 << 20 }, "cpu": { "shares": 512, "quota": 50000 } },
        });
    });
    bundle.leave(&["create", "one"]);
    let made = groups(&name);
    assert!(!made.is_empty());
    let value = |file: &str| {
        let found = made.iter().find_map(|group| std::fs::read_to_string(group.join(file)).ok());
        found.map(|text| text.trim().to_owned())
    };
    assert_eq!(value("memory.limit_in_bytes").as_deref(), Some("268435456"));
    assert_eq!(value("cpu.shares").as_deref(), Some("512"));
    bundle.good(&["start", "one"]);
    let pid = bundle.state("one", "pid").as_i64().expect("a pid") as i32;
    for member in std::iter::once(pid).chain(kit::children(pid)) {
        let text = std::fs::read_to_string(format!("/proc/{member}/cgroup")).expect("groups");
        assert_eq!(text.matches(&format!(":/{name}\n")).count(), made.len(), "{text}");
    }
    bundle.good(&["pause", "one"]);
    assert_eq!(bundle.state("one", "status"), "paused");
    let (code, _, text) = bundle.run(&["kill", "one", "TERM"]);
    assert!(code == Some(1) && text.contains("paused"), "{text}");
    bundle.good(&["resume", "one"]);
    assert_eq!(bundle.good(&["ps", "one"]).lines().count(), 2);
    bundle.good(&["pause", "one"]);
    bundle.good(&["kill", "one", "KILL"]);
    assert!(gone(pid, Duration::ZERO));
    bundle.good(&["delete", "one"]);
    assert_eq!(groups(&name), Vec::<std::path::PathBuf>::new());
}
