//! The OCI runtime spec, by comparison: the same bundle for `runc` and for `runsc`, with the same results.
//!
//! Needs root, `runc`, a static busybox, and a `runsc` (the variable `RAMPART_RUNSC`, which `cargo xtask test` sets).

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rampart_tests::bundle::{Bundle, Runtime};
use rampart_tests::sandbox::RUNSC;
use serde_json::{Value, json};

/// How long a container may take to reach a status.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both runtimes, when there are: `runsc` with `flags`.
fn runtimes(flags: &[&str]) -> Option<[Runtime; 2]> {
    let runsc = std::env::var_os(RUNSC).filter(|_| nix::unistd::geteuid().is_root());
    let Some(runsc) = runsc else {
        println!("skipped: needs root and {RUNSC}");
        return None;
    };
    let made = |program: &Path, flags: &[&str]| Runtime::new(program, flags).expect("a place for its state");
    Some([made(Path::new("runc"), &[]), made(Path::new(&runsc), flags)])
}

/// What came of a container.
struct Shown {
    /// How it ended, and what it wrote.
    outcome: (Option<i32>, String),
    /// What it or its runtime complained of.
    errors: String,
}

/// What a container wrote, and how it ended, for each runtime.
fn outputs(flags: &[&str], script: &str, change: impl Fn(&mut Value, &Path)) -> Option<[Shown; 2]> {
    Some(runtimes(flags)?.map(|runtime| {
        let mut bundle = Bundle::new(script).expect("a bundle");
        let path = bundle.path().to_owned();
        change(&mut bundle.spec, &path);
        bundle.write().expect("a spec");
        // runc calls the control group after the container, and other tests run theirs at the same time.
        let id = path.file_name().and_then(|name| name.to_str()).expect("a name").trim_start_matches('.');
        let output = runtime.call(&["run", "--bundle", bundle.text(), id]).expect("runs");
        let _ = runtime.call(&["delete", "--force", id]);
        let code = output.status.and_then(|status| status.code());
        assert!(
            !output.stdout.is_empty() || code != Some(0),
            "{}: nothing: {}",
            runtime.name(),
            output.stderr
        );
        Shown { outcome: (code, output.stdout), errors: output.stderr }
    }))
}

/// Both show the same.
fn same(flags: &[&str], script: &str, change: impl Fn(&mut Value, &Path)) {
    if let Some([runc, runsc]) = outputs(flags, script, change) {
        let errors = format!("{}; {}", runsc.errors, runc.errors);
        assert_eq!(runsc.outcome, runc.outcome, "runsc, runc: {script}: {errors}");
    }
}

#[test]
fn a_process_has_what_its_spec_says() {
    let script = "id; pwd; umask; env | sort; ulimit -n; ulimit -Hn; ulimit -c; hostname; \
                  grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status; cat /proc/self/oom_score_adj; \
                  echo $$; ls /proc/self/fd | wc -l";
    same(&[], script, |_, _| {});
    same(&[], script, |spec, _| {
        let process = &mut spec["process"];
        process["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o077 });
        process["cwd"] = json!("/data/made");
        process["env"] = json!(["PATH=/bin", "A=b c", "EMPTY="]);
        process["oomScoreAdj"] = json!(100);
        process["noNewPrivileges"] = json!(false);
        process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        process["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
        spec["hostname"] = json!("other.example");
    });
}

#[test]
fn devices_are_those_of_the_spec_and_dev_can_be_changed() {
    let script = "cd /dev; stat -c '%n %F %a %u:%g %t:%T' null zero full random urandom tty mine pipe disk | sort; \
                  for name in fd stdin stdout stderr ptmx; do echo $name $(readlink $name); done; \
                  ls -d shm mqueue pts; echo x > null; head -c 3 zero | wc -c; echo x > full || echo full; \
                  mkdir net && mknod net/n c 1 3 && echo y > net/n && cat net/n && echo own; \
                  echo text > log && cat log && rm log && ln -s null alias && echo z > alias; \
                  cat < mine || echo no such device; stat -c '%a' /dev /dev/shm /dev/pts /dev/mqueue";
    same(&[], script, |spec, _| {
        spec["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 250, "minor": 300, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/disk", "type": "b", "major": 7, "minor": 9, "fileMode": 0o600 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 },
        ]);
        spec["linux"]["resources"] = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    });
}

#[test]
fn mounts_are_made_in_order_with_their_flags() {
    let script = "cut -d' ' -f2,3 /proc/mounts | grep -v '^/ ' | sed 's/ \\(ext4\\|gofer\\|overlay\\|xfs\\|btrfs\\)$//'; \
                  sed 's/^[^ ]* \\([^ ]*\\) [^ ]* \\([^ ]*\\).*/\\1 \\2/' /proc/mounts | grep -E '^/(proc|sys|dev/shm|ro|rw|file|room) ' \
                    | grep -o -E '^[^ ]*|ro|nosuid|nodev|noexec'; \
                  cat /ro/in /file; echo new > /ro/new || echo refused; echo new > /rw/new && cat /rw/new; \
                  stat -c '%a %u:%g' /room; dd if=/dev/zero of=/room/fill bs=64k count=3 2>/dev/null || echo full; \
                  /noexec/busybox true || echo not executable; cat /noexec/null || echo no device";
    same(&[], script, |spec, bundle| {
        let outside = bundle.join("outside");
        fs::create_dir_all(&outside).expect("a folder");
        fs::write(outside.join("in"), "in\n").expect("a file");
        fs::copy("/bin/busybox", outside.join("busybox")).expect("busybox");
        let made =
            std::process::Command::new("mknod").arg(outside.join("null")).args(["c", "1", "3"]).status();
        assert!(made.is_ok_and(|status| status.success()), "mknod");
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        let bind = |to: &str, from: &Path, options: &[&str]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
        mounts.push(bind("/ro", &outside, &["bind", "ro"]));
        mounts.push(bind("/rw", &outside, &["rbind", "rw"]));
        mounts.push(bind("/file", &outside.join("in"), &["bind", "ro"]));
        mounts.push(bind("/noexec", &outside, &["bind", "noexec", "nodev"]));
        mounts.push(json!({ "destination": "/room", "type": "tmpfs", "source": "tmpfs",
            "options": ["size=128k", "mode=1750", "uid=3", "gid=4"] }));
    });
}

#[test]
fn paths_are_masked_and_protected_and_sysctls_set() {
    let script = "cat /etc/kept; ls -A /data | wc -l; echo x > /tmp/x || echo refused; cat /proc/sys/kernel/msgmax /proc/sys/kernel/shmmax; \
                  cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/ip_unprivileged_port_start; echo new > /data2/x || echo hidden; \
                  stat -c '%F' /etc/kept /data";
    same(&[], script, |spec, bundle| {
        fs::write(bundle.join("rootfs/data/secret"), "secret").expect("a file");
        spec["linux"]["maskedPaths"] = json!(["/etc/kept", "/data", "/not/there"]);
        spec["linux"]["readonlyPaths"] = json!(["/tmp", "/not/there"]);
        spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "4096", "kernel.shmmax": "1000000",
            "net.core.somaxconn": "77", "net.ipv4.ip_unprivileged_port_start": "0" });
    });
    let script =
        "echo x > /etc/x || echo refused; mkdir /y || echo refused; echo x > /dev/shm/x && cat /dev/shm/x";
    same(&[], script, |spec, _| spec["root"]["readonly"] = json!(true));
}

#[test]
fn a_container_ends_as_its_program_does() {
    for script in ["exit 7", "kill -9 $$", "kill -TERM $$; exit 3", "false", "exec sleep 0"] {
        same(&[], &format!("echo starts; {script}"), |_, _| {});
    }
    for args in [json!(["no-such-program"]), json!(["/etc/kept"]), json!(["/data"])] {
        let [runc, runsc] = match outputs(&[], "", |spec, _| spec["process"]["args"] = args.clone()) {
            Some(both) => both,
            None => return,
        };
        assert_eq!(runsc.outcome, runc.outcome, "{args}");
        assert_ne!(runsc.outcome.0, Some(0), "{args}");
    }
}

#[test]
fn a_seccomp_profile_is_kept() {
    let script = "chmod 700 /tmp && echo changed || echo not changed; mkdir /tmp/a && echo made; \
                  kill -0 $$ && echo alive; kill -USR1 1 || echo not sent; echo end";
    same(&["--oci-seccomp"], script, |spec, _| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                { "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                { "names": ["kill"], "action": "SCMP_ACT_ERRNO",
                  "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }] },
            ],
        });
    });
}

/// The status that a runtime tells, or none.
fn status(runtime: &Runtime, id: &str) -> Option<String> {
    let output = runtime.call(&["state", id]).expect("runs");
    let state: Value = serde_json::from_str(&output.stdout).ok()?;
    state["status"].as_str().map(str::to_owned)
}

fn wait_for(runtime: &Runtime, id: &str, wanted: &str) {
    let start = Instant::now();
    while status(runtime, id).as_deref() != Some(wanted) {
        assert!(start.elapsed() < PATIENCE, "{}: {id} is {:?}", runtime.name(), status(runtime, id));
        thread::sleep(Duration::from_millis(20));
    }
}

/// What happens to a container through its life, in words.
fn life(runtime: &Runtime) -> Vec<String> {
    let mut bundle =
        Bundle::new("trap 'exit 5' USR1; echo up > /rw/up; while :; do sleep 0.05; done").expect("a bundle");
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    let rw = json!({ "destination": "/rw", "type": "bind", "source": outside, "options": ["bind"] });
    bundle.spec["mounts"].as_array_mut().expect("mounts").push(rw);
    // Without a group of its own a container cannot be paused.
    bundle.spec["linux"]["cgroupsPath"] =
        json!(format!("/rampart-oci-{}-{}", runtime.name(), std::process::id()));
    bundle.spec["annotations"] = json!({ "org.example": "yes" });
    bundle.write().expect("a spec");
    let mut seen = Vec::new();
    let note = |what: &str, arguments: &[&str]| {
        let output = runtime.call(arguments).expect("runs");
        format!("{what}: {}", if output.succeeded() { "done" } else { "refused" })
    };
    let pid_file = bundle.path().join("pid");
    let create =
        ["create", "--bundle", bundle.text(), "--pid-file", pid_file.to_str().expect("a path"), "one"];
    seen.push(note("start before it is there", &["start", "one"]));
    seen.push(note("create", &create));
    seen.push(note("create again", &create));
    let state = runtime.call(&["state", "one"]).expect("runs");
    let state: Value = serde_json::from_str(&state.stdout).expect("a state");
    for field in ["id", "status", "annotations"] {
        seen.push(format!("{field}: {}", state[field]));
    }
    let noted = fs::read_to_string(&pid_file).unwrap_or_default();
    seen.push(format!("pid file: {}", json!(noted.trim().parse::<i64>().ok()) == state["pid"]));
    seen.push(format!("bundle: {}", state["bundle"] == json!(bundle.path())));
    seen.push(format!(
        "lives: {}",
        state["pid"].as_i64().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
    ));
    seen.push(format!("runs already: {}", outside.join("up").exists()));
    seen.push(note("start", &["start", "one"]));
    wait_for(runtime, "one", "running");
    let start = Instant::now();
    while !outside.join("up").exists() {
        assert!(start.elapsed() < PATIENCE, "{}: it does not run", runtime.name());
        thread::sleep(Duration::from_millis(20));
    }
    seen.push(note("start again", &["start", "one"]));
    seen.push(note("delete while it runs", &["delete", "one"]));
    let exec = runtime.call(&[
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--user",
        "7:8",
        "one",
        "sh",
        "-c",
        "pwd; echo $A; id; exit 9",
    ]);
    let exec = exec.expect("runs");
    seen.push(format!("exec: {:?} {:?}", exec.status.and_then(|status| status.code()), exec.stdout));
    seen.push(note("exec of nothing", &["exec", "one", "no-such-program"]));
    seen.push(note("pause", &["pause", "one"]));
    seen.push(format!("{:?}", status(runtime, "one")));
    seen.push(note("resume", &["resume", "one"]));
    seen.push(note("kill of no signal", &["kill", "one", "NOSUCH"]));
    seen.push(note("kill", &["kill", "one", "USR1"]));
    wait_for(runtime, "one", "stopped");
    seen.push(note("kill when stopped", &["kill", "one", "TERM"]));
    seen.push(note("start when stopped", &["start", "one"]));
    seen.push(note("exec when stopped", &["exec", "one", "true"]));
    seen.push(note("delete", &["delete", "one"]));
    seen.push(format!("{:?}", status(runtime, "one")));
    seen.push(note("delete again", &["delete", "one"]));
    seen
}

#[test]
fn a_container_lives_through_the_same() {
    let Some([runc, runsc]) = runtimes(&[]) else { return };
    assert_eq!(life(&runsc), life(&runc), "runsc, runc");
}

/// What hooks wrote, in order; one that fails is `failing`.
fn hooks(runtime: &Runtime, failing: &str) -> (bool, bool, String) {
    let mut bundle = Bundle::new("exit 0").expect("a bundle");
    let log = bundle.path().join("log");
    let hook = |name: &str| {
        let said = format!("cat > /dev/null; echo {name} >> {}; test {name} != {failing}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", said], "env": ["PATH=/bin:/usr/bin"] }])
    };
    bundle.spec["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    bundle.write().expect("a spec");
    let created = runtime.call(&["create", "--bundle", bundle.text(), "one"]).expect("runs").succeeded();
    let started = created && runtime.call(&["start", "one"]).expect("runs").succeeded();
    if started {
        wait_for(runtime, "one", "stopped");
    }
    let _ = runtime.call(&["delete", "--force", "one"]);
    (created, started, fs::read_to_string(&log).unwrap_or_default())
}

#[test]
fn hooks_run_in_order_and_one_that_fails_counts() {
    let Some([runc, runsc]) = runtimes(&[]) else { return };
    for failing in ["none", "prestart", "createRuntime", "poststop"] {
        assert_eq!(hooks(&runsc, failing), hooks(&runc, failing), "runsc, runc: {failing} fails");
    }
    // A warning, says the spec; runc 1.1 fails the start.
    let all = "prestart\ncreateRuntime\npoststart\npoststop\n";
    assert_eq!(hooks(&runsc, "poststart"), (true, true, all.to_owned()));
}
