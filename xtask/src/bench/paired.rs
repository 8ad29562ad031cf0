//! What is measured in pairs: a call by notification beside what the host takes for it, and computing beside a
//! native program on one processor.
//!
//! A machine whose speed changes from second to second shows neither otherwise. Two programs that share a processor
//! get the same time of it at the same speed, and what each has done by then is compared.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use super::{Contestant, parse};

/// Computing beside a native program, on one processor.
pub(super) const SHARED: &str = "compute_on_a_shared_processor";
/// How long two programs compute.
const SPAN: Duration = Duration::from_secs(4);
/// Until when they have started.
const START: Duration = Duration::from_secs(1);

/// A call by notification: natively one that nothing is done for; `None` for a contestant that knows no such.
pub(super) fn cold_call(
    contestant: &Contestant,
    (micro, notify): (&Path, &Path),
) -> anyhow::Result<Option<(String, f64)>> {
    let mut command = match contestant.name.as_str() {
        "native" => Command::new(notify),
        "systrap" => {
            let mut command = contestant.command();
            command.args(["--systrap-disable-fast-path", "--"]).arg(micro).arg("null_call");
            command
        }
        _ => return Ok(None),
    };
    let output = command.current_dir(std::env::temp_dir()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "a cold call of {}: {}", contestant.name, output.status);
    let figures = parse(&String::from_utf8_lossy(&output.stdout))?;
    Ok(figures.into_iter().next().map(|(_, nanos)| ("cold_call".to_owned(), nanos)))
}

/// Nanoseconds of the processor for one unit of computing: natively, and by the contestant.
pub(super) fn shared(contestant: &Contestant, micro: &Path) -> anyhow::Result<[f64; 2]> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let times = [now + START, now + START + SPAN].map(|time| format!("{:.3}", time.as_secs_f64()));
    let start = |contestant: &Contestant| {
        // One that every machine has.
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).args(contestant.words(micro)).arg("--share").args(&times);
        pinned.current_dir(std::env::temp_dir()).stdin(Stdio::null()).stdout(Stdio::piped());
        pinned.spawn().context("running taskset")
    };
    let native = Contestant { name: "native".to_owned(), prefix: Vec::new() };
    let both = [start(&native)?, start(contestant)?];
    let [native, ours] = both.map(units);
    Ok([native?, ours?])
}

fn units(child: Child) -> anyhow::Result<f64> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let units: u32 = text.trim().parse().with_context(|| format!("not a number: {text:?}"))?;
    ensure!(output.status.success() && units > 0, "nothing was computed: {}", output.status);
    Ok(SPAN.as_nanos() as f64 / 2.0 / f64::from(units))
}
