//! What the processes in control groups use.

use std::fs;

use super::{Cgroups, Group, Version};

/// Nanoseconds of a tick in `cpuacct.stat` (`USER_HZ`).
const TICK: u64 = 10_000_000;

/// What is used. Zero, or empty, where the host does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in nanoseconds.
    pub cpu_total: u64,
    /// Of it, in user mode.
    pub cpu_user: u64,
    /// Of it, in the host's kernel.
    pub cpu_kernel: u64,
    /// Processor time of each processor in nanoseconds.
    pub cpu_each: Vec<u64>,
    /// Periods in which a quota of processor time counted.
    pub periods: u64,
    /// Of them, those in which it was used up.
    pub throttled_periods: u64,
    /// Nanoseconds lost by that.
    pub throttled_time: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Most that it was.
    pub memory_max: u64,
    /// Most that it may be; the largest number when there is no limit.
    pub memory_limit: u64,
    /// How often it reached that.
    pub memory_failures: u64,
    /// Bytes of memory and swap.
    pub memory_swap: u64,
    /// The host's own numbers about memory, by name.
    pub memory_detail: Vec<(String, u64)>,
    /// How many processes were killed for lack of memory.
    pub oom_kills: u64,
    /// Tasks of the host.
    pub tasks: u64,
}

impl Usage {
    /// A number of `memory_detail`, or zero.
    pub fn memory_of(&self, name: &str) -> u64 {
        self.memory_detail.iter().find(|(key, _)| key == name).map_or(0, |(_, value)| *value)
    }
}

impl Group {
    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    fn number(&self, file: &str) -> u64 {
        match self.text(file).trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    fn fields(&self, file: &str) -> Vec<(String, u64)> {
        fields(&self.text(file))
    }
}

/// Lines of a name and a number.
fn fields(text: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn field(fields: &[(String, u64)], name: &str) -> u64 {
    fields.iter().find(|(key, _)| key == name).map_or(0, |(_, value)| *value)
}

impl Cgroups {
    /// What is used now.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        if let Some(group) = self.with("cpuacct") {
            cpu_time_one(group, &mut usage);
        }
        if let Some(group) = self.with("cpu") {
            cpu(group, &mut usage);
        }
        if let Some(group) = self.with("memory") {
            memory(group, &mut usage);
        }
        if let Some(group) = self.with("pids") {
            usage.tasks = group.number("pids.current");
        }
        usage
    }
}

fn cpu_time_one(group: &Group, usage: &mut Usage) {
    usage.cpu_total = group.number("cpuacct.usage");
    let each = group.text("cpuacct.usage_percpu");
    usage.cpu_each = each.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    let stat = group.fields("cpuacct.stat");
    usage.cpu_user = field(&stat, "user").saturating_mul(TICK);
    usage.cpu_kernel = field(&stat, "system").saturating_mul(TICK);
}

fn cpu(group: &Group, usage: &mut Usage) {
    let stat = group.fields("cpu.stat");
    usage.periods = field(&stat, "nr_periods");
    usage.throttled_periods = field(&stat, "nr_throttled");
    usage.throttled_time = field(&stat, "throttled_time");
    if group.version == Version::Two {
        let nanos = |name| field(&stat, name).saturating_mul(1000);
        usage.cpu_total = nanos("usage_usec");
        usage.cpu_user = nanos("user_usec");
        usage.cpu_kernel = nanos("system_usec");
        usage.throttled_time = nanos("throttled_usec");
    }
}

fn memory(group: &Group, usage: &mut Usage) {
    usage.memory_detail = group.fields("memory.stat");
    let names = match group.version {
        Version::One => [
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.limit_in_bytes",
            "memory.memsw.usage_in_bytes",
            "memory.oom_control",
        ],
        Version::Two => {
            ["memory.current", "memory.peak", "memory.max", "memory.swap.current", "memory.events"]
        }
    };
    let [now, most, limit, swap, events] = names;
    usage.memory = group.number(now);
    usage.memory_max = group.number(most);
    usage.memory_limit = group.number(limit);
    usage.memory_swap = group.number(swap);
    let events = group.fields(events);
    usage.oom_kills = field(&events, "oom_kill");
    usage.memory_failures = match group.version {
        Version::One => group.number("memory.failcnt"),
        Version::Two => field(&events, "max"),
    };
}

#[cfg(test)]
mod tests {
    use super::{Group, Usage, Version, cpu, field, fields, memory};

    #[test]
    fn numbers_are_found_by_name() {
        let all = fields("user 5\nsystem 7\nodd\nmax x\n");
        assert_eq!((field(&all, "system"), field(&all, "max"), all.len()), (7, 0, 2));
    }

    #[test]
    fn version_two_is_understood() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writes");
        write("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 2\nthrottled_usec 1\n");
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.events", "low 0\nmax 3\noom 1\noom_kill 1\n");
        let group = Group { dir: dir.path().into(), controllers: Vec::new(), version: Version::Two };
        let mut usage = Usage::default();
        cpu(&group, &mut usage);
        memory(&group, &mut usage);
        assert_eq!((usage.cpu_total, usage.cpu_kernel, usage.throttled_time), (10_000, 4000, 1000));
        assert_eq!((usage.memory, usage.memory_limit), (4096, u64::MAX));
        assert_eq!((usage.memory_failures, usage.oom_kills, usage.periods), (3, 1, 2));
    }
}
