//! The texts of the whole system, and `/proc/sys` as programs read it.

use std::fmt::Write;
use std::sync::Arc;

use abi::Errno;
use kernfs::{Spec, StaticDir, Text};
use vfs::{FileContext, Result};

use crate::source::{CpuModel, ProcConfig, Setting, SystemFacts};

/// A text of the system's facts.
fn facts(config: &Arc<ProcConfig>, text: impl Fn(&SystemFacts) -> Vec<u8> + Send + Sync + 'static) -> Spec {
    let processes = Arc::clone(&config.processes);
    Spec::text(0o444, move |_: &FileContext<'_>| Ok(text(&processes.system())))
}

/// Everything in the top directory that has a name and is no link.
pub(crate) fn files(config: &Arc<ProcConfig>) -> StaticDir {
    let cpu = config.cpu.clone();
    let version = format!("Linux version {} {}\n", config.release, config.version);
    let filesystems =
        config.filesystems.iter().fold(String::new(), |out, name| out + "nodev\t" + name + "\n");
    StaticDir::new()
        .constant("cmdline", "\n")
        .with("cpuinfo", facts(config, move |s| cpuinfo(&cpu, s.cpus)))
        .constant("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")
        .constant("filesystems", filesystems)
        .with("loadavg", facts(config, loadavg))
        .with("meminfo", facts(config, meminfo))
        .constant("modules", "")
        .constant("partitions", "major minor  #blocks  name\n\n")
        .with("stat", facts(config, stat))
        .constant("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
        .with("sys", sys(config).spec())
        .dir("sysvipc", StaticDir::new())
        .with("uptime", facts(config, uptime))
        .constant("version", version)
}

fn cpuinfo(cpu: &CpuModel, cpus: u32) -> Vec<u8> {
    let mut out = String::new();
    for n in 0..cpus {
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            out,
            "processor\t: {n}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\n\
             stepping\t: {}\ncpu MHz\t\t: {}.000\ncache size\t: {} KB\nphysical id\t: 0\nsiblings\t: {cpus}\n\
             core id\t\t: {n}\ncpu cores\t: {cpus}\napicid\t\t: {n}\nfpu\t\t: yes\nwp\t\t: yes\nflags\t\t: {}\n\
             clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 48 bits physical, 48 bits virtual\n\n",
            cpu.vendor, cpu.family, cpu.model, cpu.name, cpu.stepping, cpu.mhz, cpu.cache_kib, cpu.flags
        );
    }
    out.into_bytes()
}

/// Averages are not kept; a sandbox cannot say more than what runs now.
fn loadavg(s: &SystemFacts) -> Vec<u8> {
    format!("0.00 0.00 0.00 {}/{} {}\n", s.running, s.tasks, s.last_pid).into_bytes()
}

fn meminfo(s: &SystemFacts) -> Vec<u8> {
    let (total, free) = (s.memory / 1024, s.memory_free / 1024);
    let used = total.saturating_sub(free);
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("PageTables", 0),
        ("CommitLimit", total),
        ("Committed_AS", used),
        ("VmallocTotal", 0),
    ];
    let mut out = String::new();
    for (name, kib) in rows {
        let _ = writeln!(out, "{:<15} {kib:>8} kB", format!("{name}:"));
    }
    out.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    out.into_bytes()
}

fn stat(s: &SystemFacts) -> Vec<u8> {
    let idle = s.uptime.as_millis() / 10;
    let mut out = format!("cpu  0 0 0 {} 0 0 0 0 0 0\n", idle * u128::from(s.cpus));
    for cpu in 0..s.cpus {
        let _ = writeln!(out, "cpu{cpu} 0 0 0 {idle} 0 0 0 0 0 0");
    }
    let _ = write!(
        out,
        "intr 0\nctxt 0\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n",
        s.boot_time, s.forks, s.running
    );
    out.into_bytes()
}

fn uptime(s: &SystemFacts) -> Vec<u8> {
    let up = s.uptime.as_secs_f64();
    format!("{up:.2} {:.2}\n", up * f64::from(s.cpus)).into_bytes()
}

fn line(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"\n"].concat()
}

/// A number that can be changed, by `sysctl(8)`'s name, or else this one for good.
fn number(config: &ProcConfig, name: &str, fixed: &str) -> Spec {
    let found = config.settings.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, setting)) => Spec::text(0o644, Number(Arc::clone(setting))),
        None => {
            let text = format!("{fixed}\n").into_bytes();
            Spec::text(0o444, move |_: &FileContext<'_>| Ok(text.clone()))
        }
    }
}

struct Number(Arc<dyn Setting>);

impl Text for Number {
    fn read(&self, _cx: &FileContext<'_>) -> Result<Vec<u8>> {
        Ok(format!("{}\n", self.0.value()).into_bytes())
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        self.0.set(text.trim().parse().map_err(|_| Errno::EINVAL)?)
    }
}

/// `/proc/sys`: the settings programs read. Most cannot be changed here; a write is `EACCES` by its mode,
/// or `EIO` for root.
fn sys(config: &Arc<ProcConfig>) -> StaticDir {
    let random = StaticDir::new()
        .constant("boot_id", format!("{}\n", config.boot_id))
        .constant("entropy_avail", "256\n")
        .constant("poolsize", "256\n");
    let kernel = StaticDir::new()
        .with("hostname", facts(config, |s| line(&s.hostname)))
        .with("domainname", facts(config, |s| line(&s.domainname)))
        .constant("ostype", "Linux\n")
        .constant("osrelease", format!("{}\n", config.release))
        .constant("version", format!("{}\n", config.version))
        .constant("cap_last_cap", "40\n")
        .constant("core_pattern", "core\n")
        .with("msgmax", number(config, "kernel.msgmax", "8192"))
        .with("msgmnb", number(config, "kernel.msgmnb", "16384"))
        .constant("msgmni", "32000\n")
        .constant("ngroups_max", "65536\n")
        .constant("overflowgid", "65534\n")
        .constant("overflowuid", "65534\n")
        .constant("pid_max", "4194304\n")
        .dir("pty", StaticDir::new().constant("max", "4096\n"))
        .dir("random", random)
        .constant("randomize_va_space", "2\n")
        .constant("sem", "32000\t1024000000\t500\t32000\n")
        .constant("shmall", "18446744073692774399\n")
        .with("shmmax", number(config, "kernel.shmmax", "18446744073692774399"))
        .constant("shmmni", "4096\n")
        .constant("tainted", "0\n")
        .constant("threads-max", "32768\n");
    StaticDir::new()
        .dir("fs", sys_fs())
        .dir("kernel", kernel)
        .dir("net", sys_net(config))
        .dir("vm", sys_vm(config))
}

fn sys_fs() -> StaticDir {
    let inotify = StaticDir::new()
        .constant("max_queued_events", "16384\n")
        .constant("max_user_instances", "128\n")
        .constant("max_user_watches", "65536\n");
    StaticDir::new()
        .constant("file-max", "9223372036854775807\n")
        .constant("nr_open", "1048576\n")
        .constant("pipe-max-size", "1048576\n")
        .constant("protected_hardlinks", "1\n")
        .constant("protected_symlinks", "1\n")
        .dir("epoll", StaticDir::new().constant("max_user_watches", "131072\n"))
        .dir("inotify", inotify)
}

fn sys_net(config: &ProcConfig) -> StaticDir {
    let ipv4 = StaticDir::new()
        .constant("ip_forward", "0\n")
        .constant("ip_local_port_range", "32768\t60999\n")
        .with("ip_unprivileged_port_start", number(config, "net.ipv4.ip_unprivileged_port_start", "1024"))
        .constant("ping_group_range", "0\t2147483647\n")
        .constant("tcp_keepalive_time", "7200\n")
        .constant("tcp_rmem", "4096\t131072\t6291456\n")
        .constant("tcp_wmem", "4096\t16384\t4194304\n")
        .constant("tcp_sack", "1\n");
    let core = StaticDir::new()
        .with("somaxconn", number(config, "net.core.somaxconn", "4096"))
        .constant("rmem_max", "212992\n")
        .constant("wmem_max", "212992\n");
    StaticDir::new().dir("core", core).dir("ipv4", ipv4)
}

fn sys_vm(config: &ProcConfig) -> StaticDir {
    StaticDir::new()
        .constant("max_map_count", "65530\n")
        .constant("mmap_min_addr", format!("{}\n", config.min_address))
        .constant("overcommit_memory", "0\n")
        .constant("overcommit_ratio", "50\n")
        .constant("swappiness", "60\n")
}
