//! `runsc update` and `runsc egress`: other limits for a container, and other rules about who it may reach.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use sandbox::{StateRoot, Status};
use serde_json::{Map, Value, json};

use crate::cli::{Cli, Update};
use crate::pods::reach_soon;

/// Most bytes of resources that are read.
const MAX_RESOURCES: u64 = 1 << 20;

/// Runs `update`.
pub(crate) fn run(root: &StateRoot, arguments: &Update) -> Result<u8> {
    let container = root.open(&arguments.id)?;
    container.require(&[Status::Created, Status::Running, Status::Paused], "update")?;
    let resources = match &arguments.resources {
        Some(path) => read(path)?,
        None => from_flags(arguments),
    };
    let resources: oci::Resources = serde_json::from_value(resources).context("resources")?;
    let wants_groups =
        resources.memory().is_some() || resources.cpu().is_some() || resources.block_io().is_some();
    let cgroups = &container.belongings().cgroups;
    if wants_groups && cgroups.is_empty() {
        anyhow::bail!("container {:?} has no control groups to set limits with", arguments.id);
    }
    cgroups.limit(&resources)?;
    if let Some(pids) = resources.pids() {
        // Neither zero nor less is a limit.
        let tasks = u32::try_from(pids.limit()).ok().filter(|tasks| *tasks > 0);
        reach_soon(root, &container)?.limit_tasks(tasks)?;
    }
    Ok(0)
}

/// Runs `egress`.
pub(crate) fn egress(cli: &Cli, root: &StateRoot, id: &str) -> Result<u8> {
    let container = root.open(id)?;
    container.require(&[Status::Created, Status::Running], "change what may be reached from")?;
    let config = cli.egress_rules.config(cli.egress, &cli.egress_resolvers)?;
    reach_soon(root, &container)?.set_egress(config)?;
    Ok(0)
}

fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    let read = |from: &mut dyn Read, text: &mut Vec<u8>| from.take(MAX_RESOURCES).read_to_end(text);
    let done = if path == Path::new("-") {
        read(&mut std::io::stdin(), &mut text)
    } else {
        File::open(path).and_then(|mut file| read(&mut file, &mut text))
    };
    done.and_then(|_| Ok(serde_json::from_slice(&text)?)).with_context(|| format!("--resources {path:?}"))
}

/// The flags as resources of a spec.
fn from_flags(arguments: &Update) -> Value {
    let object = |fields: Vec<(&str, Option<Value>)>| -> Option<Value> {
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let map: Map<_, _> = given.collect();
        (!map.is_empty()).then_some(Value::Object(map))
    };
    let memory = object(vec![
        ("limit", arguments.memory.map(Value::from)),
        ("reservation", arguments.memory_reservation.map(Value::from)),
        ("swap", arguments.memory_swap.map(Value::from)),
    ]);
    let cpu = object(vec![
        ("shares", arguments.cpu_share.map(Value::from)),
        ("quota", arguments.cpu_quota.map(Value::from)),
        ("period", arguments.cpu_period.map(Value::from)),
        ("cpus", arguments.cpuset_cpus.clone().map(Value::from)),
        ("mems", arguments.cpuset_mems.clone().map(Value::from)),
    ]);
    let all = object(vec![
        ("memory", memory),
        ("cpu", cpu),
        ("pids", arguments.pids_limit.map(|limit| json!({ "limit": limit }))),
        ("blockIO", arguments.blkio_weight.map(|weight| json!({ "weight": weight }))),
    ]);
    all.unwrap_or_else(|| json!({}))
}
