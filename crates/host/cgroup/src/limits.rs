//! Limits of a spec as files of control groups, of both versions.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory};

/// A limit as both versions have it: a file and a value; no file where there is none.
pub(super) struct Limit {
    pub(super) one: (&'static str, String),
    pub(super) two: (&'static str, String),
    /// Not every host has the file.
    pub(super) optional: bool,
}

impl Limit {
    fn new(one: (&'static str, String), two: (&'static str, String)) -> Self {
        Self { one, two, optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

fn none() -> (&'static str, String) {
    ("", String::new())
}

/// A number of bytes in version 2; negative means no limit.
fn bytes(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Limits of the `memory` controller.
pub(super) fn memory_limits(memory: &LinuxMemory) -> Vec<Limit> {
    let mut limits = Vec::new();
    if let Some(limit) = memory.limit() {
        let one = ("memory.limit_in_bytes", limit.to_string());
        limits.push(Limit::new(one, ("memory.max", bytes(limit))));
    }
    if let Some(reservation) = memory.reservation() {
        let one = ("memory.soft_limit_in_bytes", reservation.to_string());
        limits.push(Limit::new(one, ("memory.low", bytes(reservation))));
    }
    if let Some(both) = memory.swap().filter(|both| *both != 0) {
        // Version 1 counts memory and swap together, version 2 only swap. Not every host counts it.
        let swap =
            memory.limit().map(|limit| if both < 0 { both } else { both.saturating_sub(limit).max(0) });
        let two = swap.map_or_else(none, |swap| ("memory.swap.max", bytes(swap)));
        limits.push(Limit::new(("memory.memsw.limit_in_bytes", both.to_string()), two).optional());
    }
    limits
}

/// Limits of the `cpu` and the `cpuset` controller.
pub(super) fn cpu_limits(cpu: &LinuxCpu) -> (Vec<Limit>, Vec<Limit>) {
    let (mut limits, mut set) = (Vec::new(), Vec::new());
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        // From 2..262144 to 1..10000, as all runtimes do.
        let weight = 1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142;
        limits.push(Limit::new(("cpu.shares", shares.to_string()), ("cpu.weight", weight.to_string())));
    }
    let period = cpu.period().filter(|period| *period > 0).unwrap_or(100_000);
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        let both = format!("{} {period}", bytes(quota));
        limits.push(Limit::new(("cpu.cfs_period_us", period.to_string()), ("cpu.max", both)));
        limits.push(Limit::new(("cpu.cfs_quota_us", quota.to_string()), none()));
    }
    if let Some(idle) = cpu.idle() {
        limits.push(Limit::new(("cpu.idle", idle.to_string()), ("cpu.idle", idle.to_string())));
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            set.push(Limit::new((file, value.clone()), (file, value.clone())));
        }
    }
    (limits, set)
}

/// Limits of the controller of block I/O: its weight. Engines give one without being asked to, so that a
/// host without it is no fault.
pub(super) fn block_limits(block: &LinuxBlockIo) -> Vec<Limit> {
    let weight = block.weight().filter(|weight| *weight > 0);
    let limit = |weight: u16| {
        // From 10..1000 to 1..10000.
        let two = 1 + (u32::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        Limit::new(("blkio.weight", weight.to_string()), ("io.weight", two.to_string())).optional()
    };
    weight.map(limit).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{cpu_limits, memory_limits};

    #[test]
    fn limits_are_those_of_both_versions() {
        let memory = serde_json::from_str(r#"{"limit": 1000, "swap": 1500}"#).expect("limits");
        let files: Vec<_> = memory_limits(&memory).into_iter().map(|l| (l.one, l.two)).collect();
        assert_eq!(files[0], (("memory.limit_in_bytes", "1000".into()), ("memory.max", "1000".into())));
        assert_eq!(files[1].1, ("memory.swap.max", "500".into()));
        let cpu = serde_json::from_str(r#"{"shares": 1024, "quota": -1, "cpus": "0"}"#).expect("limits");
        let (cpu, set) = cpu_limits(&cpu);
        let two: Vec<_> = cpu.iter().chain(&set).map(|l| (l.two.0, l.two.1.as_str())).collect();
        assert_eq!(two, [("cpu.weight", "39"), ("cpu.max", "max 100000"), ("", ""), ("cpuset.cpus", "0")]);
    }
}
