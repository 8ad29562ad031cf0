//! `runsc do` from end to end, on static programs without a C library.

mod kit;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use kit::{Root, alive, children, gone, runsc};

#[test]
fn the_exit_code_is_the_programs() {
    let root = Root::new();
    root.assemble("exit", "mov $231,%eax\nmov $42,%edi\nsyscall\n");
    root.assemble("fault", "mov 0,%rax\n");
    assert_eq!(root.run(&["/bin/exit"]).status.code(), Some(42));
    assert_eq!(root.run(&["exit"]).status.code(), Some(42));
    assert_eq!(root.run(&["fault"]).status.code(), Some(128 + 11));
}

#[test]
fn output_is_the_programs() {
    let root = Root::new();
    let write = "mov $1,%eax\nmov $1,%edi\nlea text(%rip),%rsi\nmov $6,%edx\nsyscall\n\
                 mov $231,%eax\nxor %edi,%edi\nsyscall\ntext: .ascii \"hello\\n\"\n";
    root.assemble("write", write);
    let output = root.run(&["write"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"hello\n".as_slice(), Some(0)));
}

#[test]
fn what_does_not_start_is_one_line() {
    let root = Root::new();
    for (arguments, word) in [
        (vec!["nothing"], "nothing"),
        (vec!["--cwd", "/nowhere", "nothing"], "/nowhere"),
        (vec!["--cwd", "here", "nothing"], "here"),
        (vec!["--env", "=x", "nothing"], "=x"),
    ] {
        let output = root.run(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn the_log_says_why() {
    let root = Root::new();
    let log = root.path().join("log");
    let mut command = runsc();
    command.arg("--log").arg(&log).args(["--log-format", "json", "do", "--rootfs"]).arg(root.path());
    assert_eq!(command.arg("nothing").output().expect("runs").status.code(), Some(1));
    let text = std::fs::read_to_string(&log).expect("a log");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|message| message.contains("nothing")), "{last}");
}

/// Whoever dies, nothing is left.
#[test]
fn one_dies_and_all_end() {
    let root = Root::new();
    root.assemble("pause", kit::PAUSE);
    // Indices of [runsc, gofer, sentry].
    for victim in 0..3 {
        let mut runsc = root.start(&["pause"]);
        let pids = kit::sandbox_of(&runsc, "pause");
        kit::kill(pids[victim], libc_kill());
        let status = runsc.0.wait().expect("ends");
        match victim {
            0 => assert_eq!(status.signal(), Some(libc_kill())),
            1 => assert_eq!(status.code(), Some(1)),
            _ => assert_eq!(status.code(), Some(128 + libc_kill())),
        }
        for pid in pids {
            assert!(gone(pid, Duration::from_secs(5)), "{pid} is left when {victim} dies");
        }
    }
}

fn libc_kill() -> i32 {
    nix::sys::signal::Signal::SIGKILL as i32
}

#[test]
fn a_signal_to_runsc_ends_the_sandbox() {
    let root = Root::new();
    root.assemble("pause", kit::PAUSE);
    let mut runsc = root.start(&["pause"]);
    let pids = kit::sandbox_of(&runsc, "pause");
    assert!(pids.iter().all(|pid| alive(*pid)));
    let guests = children(pids[2]);
    assert!(!guests.is_empty());
    kit::kill(pids[0], nix::sys::signal::Signal::SIGTERM as i32);
    assert_eq!(runsc.0.wait().expect("ends").code(), Some(128 + 15));
    assert!(pids.iter().chain(&guests).all(|pid| gone(*pid, Duration::from_secs(5))));
}

/// One that takes no notice is given some time, then ended.
#[test]
fn a_program_that_ignores_the_request_to_end_is_ended() {
    let root = Root::new();
    // rt_sigaction(SIGTERM, SIG_IGN).
    let ignore = format!(
        "mov $13,%eax\nmov $15,%edi\nlea action(%rip),%rsi\nxor %edx,%edx\nmov $8,%r10d\nsyscall\n{}\
                          .data\naction: .quad 1,0,0,0\n",
        kit::PAUSE
    );
    root.assemble("pause", &ignore);
    let mut runsc = root.start(&["pause"]);
    let pids = kit::sandbox_of(&runsc, "pause");
    std::thread::sleep(Duration::from_millis(300));
    kit::kill(pids[0], nix::sys::signal::Signal::SIGTERM as i32);
    std::thread::sleep(Duration::from_millis(300));
    assert!(pids.iter().all(|pid| alive(*pid)));
    assert_eq!(runsc.0.wait().expect("ends").code(), Some(128 + 15));
    assert!(pids.iter().all(|pid| gone(*pid, Duration::from_secs(5))));
}

/// Needs root, for mounts of its own.
#[test]
fn what_is_mounted_on_the_host_is_under_the_overlay_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "
        set -e; cd \"$1\"; mkdir w r; mount -t tmpfs none w; mount -t tmpfs none r; touch w/host r/host
        mount -o remount,ro r
        \"$2\" do sh -c 'echo guest >w/host; mkdir w/new; ls w; cat w/host; touch r/new 2>/dev/null || echo refused'
        ls w; cat w/host";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .arg(env!("CARGO_BIN_EXE_runsc"))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "host\nnew\nguest\nrefused\nhost\n", "{said}");
}
