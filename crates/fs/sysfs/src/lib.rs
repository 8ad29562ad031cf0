//! /sys: the few trees programs read (`sysfs(5)`).
//!
//! Processor and node lists for language runtimes and allocators, the mount points container engines
//! expect, huge-page settings, and network interfaces. A sandbox has no hardware: there are no buses,
//! block devices or modules, but their directories exist and are empty.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use abi::time::Timespec;
use kernfs::{Directory, FsInfo, KernFs, Listed, Spec, StaticDir};
use vfs::{FileContext, Result};

/// `SYSFS_MAGIC`.
const MAGIC: i64 = 0x6265_6572;

/// A network interface, as `/sys/class/net/NAME` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetInterface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub address: [u8; 6],
    /// `IFF_*`.
    pub flags: u32,
    /// `ARPHRD_*`.
    pub kind: u32,
    /// Is it up and has it a carrier?
    pub up: bool,
}

/// What the tree shows.
pub struct SysConfig {
    /// Processors, at least 1.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Network interfaces now.
    pub interfaces: Arc<dyn Fn() -> Vec<NetInterface> + Send + Sync>,
}

/// The file system to mount at `/sys`.
pub fn mount(dev: u64, now: Timespec, config: &SysConfig) -> Arc<KernFs> {
    let info = FsInfo { type_name: "sysfs", magic: MAGIC, dev, now, stable: false };
    KernFs::new(info, tree(config).spec())
}

/// The tree alone.
pub fn tree(config: &SysConfig) -> StaticDir {
    let system = StaticDir::new().dir("cpu", cpu_dir(config.cpus)).dir("node", node_dir(config));
    let devices = StaticDir::new().dir("system", system).dir("virtual", StaticDir::new());
    let class = StaticDir::new()
        .dir("net", NetDir(Arc::clone(&config.interfaces)))
        .dir("block", StaticDir::new())
        .dir("tty", StaticDir::new())
        .dir("mem", StaticDir::new());
    StaticDir::new()
        .dir("block", StaticDir::new())
        .dir("bus", StaticDir::new())
        .dir("class", class)
        .dir("dev", StaticDir::new().dir("block", StaticDir::new()).dir("char", StaticDir::new()))
        .dir("devices", devices)
        .dir("firmware", StaticDir::new())
        .dir("fs", StaticDir::new().dir("cgroup", StaticDir::new()).dir("bpf", StaticDir::new()))
        .dir("kernel", kernel_dir())
        .dir("module", StaticDir::new())
        .dir("power", StaticDir::new())
}

/// `0`, or `0-7`.
fn range(count: u32) -> String {
    match count {
        0 | 1 => "0\n".to_owned(),
        _ => format!("0-{}\n", count - 1),
    }
}

/// A mask of processors as `cpumap` files have it: 32-bit words, highest first.
fn mask(first: u32, count: u32, total: u32) -> String {
    let mut out = String::new();
    for word in (0..total.div_ceil(32)).rev() {
        let bits = (0..32).filter(|bit| (first..first.saturating_add(count)).contains(&(word * 32 + bit)));
        let value = bits.fold(0u32, |value, bit| value | 1 << bit);
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}{value:08x}");
    }
    out.push('\n');
    out
}

fn cpu_dir(cpus: u32) -> StaticDir {
    let cpus = cpus.max(1);
    let dir = StaticDir::new()
        .constant("online", range(cpus))
        .constant("possible", range(cpus))
        .constant("present", range(cpus))
        .constant("offline", "\n")
        .constant("isolated", "\n")
        .constant("kernel_max", "8191\n");
    (0..cpus).fold(dir, |dir, cpu| dir.dir(&format!("cpu{cpu}"), one_cpu(cpu, cpus)))
}

fn one_cpu(cpu: u32, cpus: u32) -> StaticDir {
    let alone = || format!("{cpu}\n");
    let topology = StaticDir::new()
        .constant("core_id", alone())
        .constant("physical_package_id", "0\n")
        .constant("die_id", "0\n")
        .constant("cluster_id", "65535\n")
        .constant("thread_siblings_list", alone())
        .constant("core_cpus_list", alone())
        .constant("thread_siblings", mask(cpu, 1, cpus))
        .constant("core_cpus", mask(cpu, 1, cpus))
        .constant("core_siblings_list", range(cpus))
        .constant("package_cpus_list", range(cpus))
        .constant("core_siblings", mask(0, cpus, cpus))
        .constant("package_cpus", mask(0, cpus, cpus));
    let dir = StaticDir::new().dir("topology", topology).with("node0", Spec::symlink("../../node/node0"));
    // As on Linux, the boot processor has no such file: it cannot be taken offline.
    if cpu == 0 { dir } else { dir.constant("online", "1\n") }
}

fn node_dir(config: &SysConfig) -> StaticDir {
    let kib = config.memory / 1024;
    let meminfo = format!("Node 0 MemTotal:       {kib:>8} kB\nNode 0 MemFree:        {kib:>8} kB\n");
    let cpus = config.cpus.max(1);
    let node = StaticDir::new()
        .constant("cpulist", range(cpus))
        .constant("cpumap", mask(0, cpus, cpus))
        .constant("distance", "10\n")
        .constant("meminfo", meminfo);
    StaticDir::new()
        .constant("online", "0\n")
        .constant("possible", "0\n")
        .constant("has_cpu", "0\n")
        .constant("has_memory", "0\n")
        .constant("has_normal_memory", "0\n")
        .dir("node0", node)
}

fn kernel_dir() -> StaticDir {
    let huge = StaticDir::new()
        .constant("enabled", "always [madvise] never\n")
        .constant("defrag", "always defer defer+madvise [madvise] never\n")
        .constant("shmem_enabled", "always within_size advise [never] deny force\n")
        .constant("hpage_pmd_size", "2097152\n");
    let mm = StaticDir::new().dir("transparent_hugepage", huge).dir("hugepages", StaticDir::new());
    StaticDir::new()
        .dir("mm", mm)
        .dir("cgroup", StaticDir::new().constant("features", "").constant("delegate", ""))
        .dir("debug", StaticDir::new())
        .dir("tracing", StaticDir::new())
        .dir("security", StaticDir::new())
}

/// `/sys/class/net`.
struct NetDir(Arc<dyn Fn() -> Vec<NetInterface> + Send + Sync>);

impl Directory for NetDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let found = (self.0)().into_iter().find(|interface| interface.name.as_bytes() == name);
        Ok(interface_dir(found.ok_or(Errno::ENOENT)?).spec())
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        let listed = |interface: NetInterface| Listed {
            key: u64::from(interface.index),
            name: interface.name.into_bytes(),
            kind: FileType::Directory,
        };
        let mut all: Vec<_> = (self.0)().into_iter().map(listed).filter(|l| l.key >= from).collect();
        all.sort_by_key(|listed| listed.key);
        Ok(all)
    }
}

fn interface_dir(interface: NetInterface) -> StaticDir {
    let [a, b, c, d, e, f] = interface.address;
    let state = match (interface.kind, interface.up) {
        // ARPHRD_LOOPBACK never says.
        (772, _) => "unknown\n",
        (_, true) => "up\n",
        (_, false) => "down\n",
    };
    let carrier = interface.up;
    let dir = StaticDir::new()
        .constant("address", format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\n"))
        .constant("addr_len", "6\n")
        .constant("ifindex", format!("{}\n", interface.index))
        .constant("iflink", format!("{}\n", interface.index))
        .constant("mtu", format!("{}\n", interface.mtu))
        .constant("flags", format!("{:#x}\n", interface.flags))
        .constant("type", format!("{}\n", interface.kind))
        .constant("operstate", state);
    // Reading the carrier of an interface that is down is `EINVAL`.
    let text = move |_: &FileContext<'_>| if carrier { Ok(b"1\n".to_vec()) } else { Err(Errno::EINVAL) };
    dir.with("carrier", Spec::text(0o444, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::fs::OpenFlags;
    use cred::Credentials;
    use guestmem::VecSink;
    use vfs::{FileSystem, Inode};

    fn read(path: &str) -> Result<String> {
        let lo = NetInterface {
            name: "lo".to_owned(),
            index: 1,
            mtu: 65536,
            address: [0; 6],
            flags: 9,
            kind: 772,
            up: true,
        };
        let interfaces = Arc::new(move || vec![lo.clone()]);
        let config = SysConfig { cpus: 34, memory: 1 << 30, interfaces };
        let start: Arc<dyn Inode> = mount(5, Timespec::default(), &config).root();
        let inode = path.split('/').try_fold(start, |inode, name| inode.lookup(name.as_bytes()))?;
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(4096);
        inode.open(&cx, OpenFlags::empty())?.read(&cx, 0, &mut sink)?;
        Ok(String::from_utf8_lossy(&sink.bytes).into_owned())
    }

    #[test]
    fn programs_find_their_processors_and_interfaces() {
        assert_eq!(read("devices/system/cpu/online"), Ok("0-33\n".to_owned()));
        assert_eq!(read("devices/system/cpu/cpu3/topology/core_id"), Ok("3\n".to_owned()));
        assert_eq!(read("devices/system/node/node0/cpumap"), Ok("00000003,ffffffff\n".to_owned()));
        assert_eq!(read("devices/system/cpu/cpu0/online"), Err(Errno::ENOENT));
        assert_eq!(read("class/net/lo/mtu"), Ok("65536\n".to_owned()));
        assert_eq!(read("class/net/eth9/mtu"), Err(Errno::ENOENT));
    }
}
