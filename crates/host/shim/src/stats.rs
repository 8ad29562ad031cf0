//! What a container uses, from the shape that `runsc events --stats` prints to that of containerd's metrics.

use cgroup::Version;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};
use containerd_shim_protos::{cgroups::metrics as one, cgroups_v2::metrics as two};
use serde_json::Value;

/// Nanoseconds of a microsecond.
const MICRO: u64 = 1000;

/// The numbers as `runsc` prints them.
struct Numbers<'a>(&'a Value);

impl Numbers<'_> {
    /// One by its path; zero when it is not there.
    fn at(&self, path: &str) -> u64 {
        self.0.pointer(path).and_then(Value::as_u64).unwrap_or(0)
    }

    /// One of the host's own about memory.
    fn memory(&self, name: &str) -> u64 {
        self.at(&format!("/memory/raw/{name}"))
    }
}

/// The metrics of what `runsc events --stats` printed, as the host's version of control groups has them.
pub(crate) fn metrics(printed: &str, version: Version) -> Result<Any, serde_json::Error> {
    let printed: Value = serde_json::from_str(printed)?;
    let numbers = Numbers(printed.get("data").unwrap_or(&Value::Null));
    let (name, bytes) = match version {
        Version::One => ("io.containerd.cgroups.v1.Metrics", version_one(&numbers).write_to_bytes()),
        Version::Two => ("io.containerd.cgroups.v2.Metrics", version_two(&numbers).write_to_bytes()),
    };
    // Numbers and short strings can always be written.
    let value = bytes.unwrap_or_default();
    Ok(Any { type_url: name.into(), value, ..Any::default() })
}

fn some<T>(message: T) -> MessageField<T> {
    MessageField::some(message)
}

fn version_one(numbers: &Numbers<'_>) -> one::Metrics {
    let per_cpu = numbers.0.pointer("/cpu/usage/percpu").and_then(Value::as_array);
    let usage = one::CPUUsage {
        total: numbers.at("/cpu/usage/total"),
        kernel: numbers.at("/cpu/usage/kernel"),
        user: numbers.at("/cpu/usage/user"),
        per_cpu: per_cpu.into_iter().flatten().filter_map(Value::as_u64).collect(),
        ..Default::default()
    };
    let throttling = one::Throttle {
        periods: numbers.at("/cpu/throttling/periods"),
        throttled_periods: numbers.at("/cpu/throttling/throttledPeriods"),
        throttled_time: numbers.at("/cpu/throttling/throttledTime"),
        ..Default::default()
    };
    one::Metrics {
        cpu: some(one::CPUStat { usage: some(usage), throttling: some(throttling), ..Default::default() }),
        memory: some(memory_one(numbers)),
        pids: some(one::PidsStat { current: numbers.at("/pids/current"), ..Default::default() }),
        ..Default::default()
    }
}

fn memory_one(numbers: &Numbers<'_>) -> one::MemoryStat {
    let entry = |name: &str| {
        let at = |field: &str| numbers.at(&format!("/memory/{name}/{field}"));
        some(one::MemoryEntry {
            limit: at("limit"),
            usage: at("usage"),
            max: at("max"),
            failcnt: at("failcnt"),
            ..Default::default()
        })
    };
    let number = |name: &str| numbers.memory(name);
    one::MemoryStat {
        cache: number("cache"),
        rss: number("rss"),
        rss_huge: number("rss_huge"),
        mapped_file: number("mapped_file"),
        dirty: number("dirty"),
        writeback: number("writeback"),
        pg_pg_in: number("pgpgin"),
        pg_pg_out: number("pgpgout"),
        pg_fault: number("pgfault"),
        pg_maj_fault: number("pgmajfault"),
        inactive_anon: number("inactive_anon"),
        active_anon: number("active_anon"),
        inactive_file: number("inactive_file"),
        active_file: number("active_file"),
        unevictable: number("unevictable"),
        hierarchical_memory_limit: number("hierarchical_memory_limit"),
        hierarchical_swap_limit: number("hierarchical_memsw_limit"),
        total_cache: number("total_cache"),
        total_rss: number("total_rss"),
        total_rss_huge: number("total_rss_huge"),
        total_mapped_file: number("total_mapped_file"),
        total_dirty: number("total_dirty"),
        total_writeback: number("total_writeback"),
        total_pg_pg_in: number("total_pgpgin"),
        total_pg_pg_out: number("total_pgpgout"),
        total_pg_fault: number("total_pgfault"),
        total_pg_maj_fault: number("total_pgmajfault"),
        total_inactive_anon: number("total_inactive_anon"),
        total_active_anon: number("total_active_anon"),
        total_inactive_file: number("total_inactive_file"),
        total_active_file: number("total_active_file"),
        total_unevictable: number("total_unevictable"),
        usage: entry("usage"),
        swap: entry("swap"),
        kernel: entry("kernel"),
        kernel_tcp: entry("kernelTCP"),
        special_fields: protobuf::SpecialFields::default(),
    }
}

fn version_two(numbers: &Numbers<'_>) -> two::Metrics {
    let cpu = two::CPUStat {
        usage_usec: numbers.at("/cpu/usage/total") / MICRO,
        user_usec: numbers.at("/cpu/usage/user") / MICRO,
        system_usec: numbers.at("/cpu/usage/kernel") / MICRO,
        nr_periods: numbers.at("/cpu/throttling/periods"),
        nr_throttled: numbers.at("/cpu/throttling/throttledPeriods"),
        throttled_usec: numbers.at("/cpu/throttling/throttledTime") / MICRO,
        ..Default::default()
    };
    two::Metrics {
        cpu: some(cpu),
        memory: some(memory_two(numbers)),
        pids: some(two::PidsStat { current: numbers.at("/pids/current"), ..Default::default() }),
        ..Default::default()
    }
}

fn memory_two(numbers: &Numbers<'_>) -> two::MemoryStat {
    let number = |name: &str| numbers.memory(name);
    two::MemoryStat {
        anon: number("anon"),
        file: number("file"),
        kernel_stack: number("kernel_stack"),
        slab: number("slab"),
        sock: number("sock"),
        shmem: number("shmem"),
        file_mapped: number("file_mapped"),
        file_dirty: number("file_dirty"),
        file_writeback: number("file_writeback"),
        anon_thp: number("anon_thp"),
        inactive_anon: number("inactive_anon"),
        active_anon: number("active_anon"),
        inactive_file: number("inactive_file"),
        active_file: number("active_file"),
        unevictable: number("unevictable"),
        slab_reclaimable: number("slab_reclaimable"),
        slab_unreclaimable: number("slab_unreclaimable"),
        pgfault: number("pgfault"),
        pgmajfault: number("pgmajfault"),
        usage: numbers.at("/memory/usage/usage"),
        usage_limit: numbers.at("/memory/usage/limit"),
        max_usage: numbers.at("/memory/usage/max"),
        swap_usage: numbers.at("/memory/swap/usage"),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, Version, metrics, one, two};

    const PRINTED: &str = r#"{ "type": "stats", "id": "a", "data": {
        "cpu": { "usage": { "total": 5000, "percpu": [2000, 3000], "user": 4000, "kernel": 1000 },
                 "throttling": { "periods": 3 } },
        "memory": { "usage": { "usage": 7, "limit": 18446744073709551615 }, "raw": { "rss": 6, "anon": 9 } },
        "pids": { "current": 2 } } }"#;

    #[test]
    fn both_shapes_have_the_numbers() {
        let any = metrics(PRINTED, Version::One).expect("good");
        let metrics_one = one::Metrics::parse_from_bytes(&any.value).expect("reads");
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        assert_eq!((metrics_one.cpu.usage.total, metrics_one.cpu.usage.per_cpu.len()), (5000, 2));
        assert_eq!((metrics_one.memory.usage.usage, metrics_one.memory.rss), (7, 6));
        assert_eq!((metrics_one.memory.usage.limit, metrics_one.pids.current), (u64::MAX, 2));
        let any = metrics(PRINTED, Version::Two).expect("good");
        let metrics_two = two::Metrics::parse_from_bytes(&any.value).expect("reads");
        assert_eq!((metrics_two.cpu.usage_usec, metrics_two.cpu.nr_periods), (5, 3));
        assert_eq!((metrics_two.memory.usage, metrics_two.memory.anon), (7, 9));
        assert!(metrics("nonsense", Version::One).is_err());
        assert!(metrics("{}", Version::Two).is_ok());
    }
}
