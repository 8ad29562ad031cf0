//! The long texts of a process: `stat`, `status`, `limits`.

use std::fmt::Write;
use std::time::Duration;

use abi::limits::{INFINITY, Limits, Resource};
use mm::MemoryManager;

use crate::source::{Facts, State};

/// Clock ticks a second (`sysconf(_SC_CLK_TCK)`).
const TICKS: u64 = 100;

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / u128::from(1000 / TICKS)).try_into().unwrap_or(u64::MAX)
}

fn letter(state: State) -> (char, &'static str) {
    match state {
        State::Running => ('R', "running"),
        State::Sleeping => ('S', "sleeping"),
        State::Stopped => ('T', "stopped"),
        State::Traced => ('t', "tracing stop"),
        State::Zombie => ('Z', "zombie"),
    }
}

/// `/proc/PID/stat`: one line of 52 fields. What a sandbox does not count is zero.
pub(crate) fn stat(f: &Facts, mm: Option<&MemoryManager>) -> Vec<u8> {
    let sizes = mm.map(MemoryManager::sizes);
    let (vsize, rss) = sizes.map_or((0, 0), |s| (s.total, s.resident / abi::PAGE_SIZE));
    let stack = mm.map_or(0, MemoryManager::stack_start);
    let rss_limit = f.limits.of(Resource::Rss).cur;
    let mut out = format!("{} (", f.tid).into_bytes();
    out.extend_from_slice(&f.name);
    // Fields 3 to 52 (`proc_pid_stat(5)`).
    let rest = format!(
        ") {} {} {} {} {} {} 0 0 0 0 0 {} {} {} {} {} {} {} 0 {} {} {} {} 0 0 {} 0 0 {} {} {} {} \
         0 0 0 {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        letter(f.state).0,
        f.ppid,
        f.group,
        f.session,
        f.terminal,
        f.foreground,
        ticks(f.user_time),
        ticks(f.system_time),
        ticks(f.children_time.0),
        ticks(f.children_time.1),
        20 + f.nice,
        f.nice,
        f.threads,
        ticks(f.start),
        vsize,
        rss,
        rss_limit,
        stack,
        f.pending.0 & 0x7fff_ffff,
        f.blocked.0 & 0x7fff_ffff,
        f.ignored.0 & 0x7fff_ffff,
        f.caught.0 & 0x7fff_ffff,
        f.exit_signal,
    );
    out.extend_from_slice(rest.as_bytes());
    out
}

/// `/proc/PID/status`.
pub(crate) fn status(f: &Facts, mm: Option<&MemoryManager>) -> Vec<u8> {
    let mut out = b"Name:\t".to_vec();
    // As on Linux, what would break the line is escaped.
    for byte in &f.name {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(*other),
        }
    }
    let mut text = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = identity(&mut text, f);
    if let Some(mm) = mm {
        let _ = memory(&mut text, mm);
    }
    let _ = signals(&mut text, f);
    out.extend_from_slice(text.as_bytes());
    out
}

fn identity(out: &mut String, f: &Facts) -> std::fmt::Result {
    let (state, word) = letter(f.state);
    let c = &f.cred;
    writeln!(out, "\nUmask:\t{:04o}\nState:\t{state} ({word})", f.umask)?;
    writeln!(
        out,
        "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t{}",
        f.pid, f.tid, f.ppid, f.tracer
    )?;
    writeln!(out, "Uid:\t{}\t{}\t{}\t{}", c.uid, c.euid, c.suid, c.fsuid)?;
    writeln!(out, "Gid:\t{}\t{}\t{}\t{}", c.gid, c.egid, c.sgid, c.fsgid)?;
    write!(out, "FDSize:\t{}\nGroups:\t", f.fd_size)?;
    for group in c.groups.iter() {
        write!(out, "{group} ")?;
    }
    let outer = [f.pid, f.tid, f.group, f.session];
    // Behind an empty list there is a blank too.
    writeln!(out, "{}", if c.groups.is_empty() { " " } else { "" })?;
    for (name, kind) in ["NStgid", "NSpid", "NSpgid", "NSsid"].into_iter().zip(0..) {
        write!(out, "{name}:")?;
        for numbers in std::iter::once(&outer).chain(&f.inner) {
            write!(out, "\t{}", numbers.get(kind).copied().unwrap_or(0))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn memory(out: &mut String, mm: &MemoryManager) -> std::fmt::Result {
    let sizes = mm.sizes();
    let rows = [
        ("VmPeak", sizes.total),
        ("VmSize", sizes.total),
        ("VmLck", 0),
        ("VmPin", 0),
        ("VmHWM", sizes.resident),
        ("VmRSS", sizes.resident),
        ("RssAnon", sizes.resident.saturating_sub(sizes.shared)),
        ("RssFile", sizes.shared),
        ("RssShmem", 0),
        ("VmData", sizes.data),
        ("VmStk", sizes.stack),
        ("VmExe", sizes.exec),
        ("VmLib", 0),
        ("VmPTE", 0),
        ("VmSwap", 0),
    ];
    for (name, bytes) in rows {
        writeln!(out, "{name}:\t{:>8} kB", bytes / 1024)?;
    }
    Ok(())
}

fn signals(out: &mut String, f: &Facts) -> std::fmt::Result {
    let c = &f.cred;
    writeln!(out, "Threads:\t{}\nSigQ:\t0/{}", f.threads, f.limits.of(Resource::PendingSignals).cur)?;
    writeln!(out, "SigPnd:\t{:016x}\nShdPnd:\t{:016x}", f.pending.0, f.shared_pending.0)?;
    writeln!(
        out,
        "SigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}",
        f.blocked.0, f.ignored.0, f.caught.0
    )?;
    writeln!(out, "CapInh:\t{:016x}\nCapPrm:\t{:016x}", c.inheritable.bits(), c.permitted.bits())?;
    writeln!(out, "CapEff:\t{:016x}\nCapBnd:\t{:016x}", c.effective.bits(), c.bounding.bits())?;
    writeln!(out, "CapAmb:\t{:016x}\nNoNewPrivs:\t{}", c.ambient.bits(), u8::from(c.no_new_privs))?;
    writeln!(out, "Seccomp:\t{}\nSeccomp_filters:\t{}", f.seccomp, u8::from(f.seccomp == 2))?;
    writeln!(
        out,
        "Cpus_allowed:\tffffffff\nCpus_allowed_list:\t0-31\nMems_allowed:\t1\nMems_allowed_list:\t0"
    )?;
    writeln!(out, "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0")
}

/// Rows of `/proc/PID/limits`: name and unit, in the order of the numbers.
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

/// `/proc/PID/limits`.
pub(crate) fn limits(limits: &Limits) -> Vec<u8> {
    let show = |value| if value == INFINITY { "unlimited".to_owned() } else { format!("{value}") };
    let mut out = format!("{:<26}{:<21}{:<21}{:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (resource, (name, unit)) in Resource::all().zip(LIMITS) {
        let limit = limits.of(resource);
        let _ = writeln!(out, "{name:<26}{:<21}{:<21}{unit:<10}", show(limit.cur), show(limit.max));
    }
    out.into_bytes()
}

/// `uid_map` of the first user namespace.
pub(crate) fn identity_map() -> Vec<u8> {
    format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into_bytes()
}

/// `/proc/PID/io`: nothing is counted.
pub(crate) fn io() -> Vec<u8> {
    let names = ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
    names.iter().fold(String::new(), |out, name| out + name + ": 0\n").into_bytes()
}
