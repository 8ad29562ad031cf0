//! `runsc events`: what a container uses, and when it runs out of memory, in the shape that runc has.

use std::time::{Duration, Instant};

use anyhow::Result;
use cgroup::{Cgroups, Usage};
use sandbox::{StateRoot, Status};
use serde_json::{Map, Value, json};

use crate::cli::Events;
use crate::commands::print;
use crate::pods::reach_soon;

/// How often to look whether the container has ended or run out of memory.
const LOOK: Duration = Duration::from_millis(200);

/// Runs `events`.
pub(crate) fn run(root: &StateRoot, arguments: &Events) -> Result<u8> {
    let id = arguments.id.as_str();
    let container = root.open(id)?;
    container.require(&[Status::Created, Status::Running, Status::Paused], "tell the events of")?;
    let cgroups = container.belongings().cgroups.clone();
    // Others want to use the container.
    drop(container);
    if arguments.stats {
        return print(&stats(root, id, &cgroups)?.to_string());
    }
    let mut kills = cgroups.usage().oom_kills;
    let mut next = Instant::now() + arguments.interval;
    loop {
        std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        let now = cgroups.usage().oom_kills;
        if now > kills {
            print(&json!({ "type": "oom", "id": id }).to_string())?;
            kills = now;
        }
        if !lives(root, id) {
            return Ok(0);
        }
        if Instant::now() >= next {
            print(&stats(root, id, &cgroups)?.to_string())?;
            next += arguments.interval;
        }
    }
}

/// Whether it is there and has not ended. Not through its lock, which a slow command may hold.
fn lives(root: &StateRoot, id: &str) -> bool {
    let states = root.list().unwrap_or_default();
    states.iter().any(|state| state.id == id && state.status != Status::Stopped)
}

fn stats(root: &StateRoot, id: &str, cgroups: &Cgroups) -> Result<Value> {
    let usage = cgroups.usage();
    // The guest's own: a task of the guest is not one of the host.
    let ask = || -> Result<usize> { Ok(reach_soon(root, &root.open(id)?)?.processes()?.len()) };
    let pids = ask().ok().map_or(usage.tasks, |pids| pids as u64);
    Ok(json!({ "type": "stats", "id": id, "data": data(&usage, pids) }))
}

fn data(usage: &Usage, pids: u64) -> Value {
    let detail: Map<String, Value> =
        usage.memory_detail.iter().map(|(name, value)| (name.clone(), Value::from(*value))).collect();
    let entry = |usage: u64, max: u64, limit: u64, failures: u64| json!({ "limit": limit, "usage": usage, "max": max, "failcnt": failures });
    json!({
        "cpu": {
            "usage": {
                "total": usage.cpu_total, "percpu": usage.cpu_each,
                "kernel": usage.cpu_kernel, "user": usage.cpu_user,
            },
            "throttling": {
                "periods": usage.periods, "throttledPeriods": usage.throttled_periods,
                "throttledTime": usage.throttled_time,
            },
        },
        "cpuset": {},
        "memory": {
            "cache": usage.memory_of("cache") + usage.memory_of("file"),
            "usage": entry(usage.memory, usage.memory_max, usage.memory_limit, usage.memory_failures),
            "swap": entry(usage.memory_swap, 0, 0, 0),
            "kernel": entry(0, 0, 0, 0),
            "kernelTCP": entry(0, 0, 0, 0),
            "raw": detail,
        },
        "pids": { "current": pids },
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

#[cfg(test)]
mod tests {
    use super::data;
    use cgroup::Usage;

    #[test]
    fn the_shape_is_that_of_runc() {
        let usage = Usage { cpu_total: 5, memory: 6, memory_limit: 7, ..Usage::default() };
        let data = data(&usage, 3);
        for (pointer, value) in [
            ("/cpu/usage/total", 5),
            ("/cpu/throttling/periods", 0),
            ("/memory/usage/usage", 6),
            ("/memory/usage/limit", 7),
            ("/pids/current", 3),
        ] {
            assert_eq!(data.pointer(pointer), Some(&value.into()), "{pointer}");
        }
    }
}
