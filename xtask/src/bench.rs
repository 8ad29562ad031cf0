//! `cargo xtask bench`: one guest micro-benchmark and loads of real programs, natively and in sandboxes, in one run.
//!
//! The contestants take turns, so that a machine that drifts drifts for all of them; what is quoted is
//! the median over the turns and its ratio to native. Whole commands (`runsc do true`) are timed from
//! outside in the same turns; what needs a pair is in `paired`, real programs are
//! in `apps`. Output: a Markdown table on stdout, and JSON in `target/bench/`.

mod apps;
mod paired;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::report::note;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    turns: usize,
    quick: bool,
    /// Other runtimes with a `do` command to measure beside ours.
    peers: Vec<PathBuf>,
    /// Platforms of ours; empty for all that have a column.
    platforms: Vec<String>,
    /// Operations and loads; empty for all.
    only: Vec<String>,
}

impl Options {
    /// From the words behind `bench`: `[--turns N] [--quick] [--peer PATH]... [--platform NAME]... [NAME...]`.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { turns: 5, ..Self::default() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--turns" => {
                    let turns = words.next().context("--turns takes a number")?;
                    options.turns = turns.parse().with_context(|| format!("--turns {turns:?}"))?;
                    ensure!(options.turns > 0, "--turns must be at least 1");
                }
                "--quick" => options.quick = true,
                "--peer" => options.peers.push(words.next().context("--peer takes a path")?.into()),
                "--platform" => options.platforms.push(words.next().context("--platform takes a name")?),
                flag if flag.starts_with('-') => bail!("unknown flag {flag:?}"),
                _ => options.only.push(word),
            }
        }
        Ok(options)
    }
}

/// Platforms of ours, a column each.
const PLATFORMS: &[&str] = &["systrap", "kvm", "ptrace"];

/// One way to run the guest program.
struct Contestant {
    name: String,
    /// What comes before the program on the command line.
    prefix: Vec<String>,
}

impl Contestant {
    /// What runs `program`.
    fn words<'a>(&'a self, program: &'a Path) -> Vec<&'a std::ffi::OsStr> {
        let prefix = self.prefix.iter().map(std::ffi::OsStr::new);
        prefix.chain(std::iter::once(program.as_os_str())).collect()
    }

    /// The command that the program is still missing from.
    fn command(&self) -> Command {
        let mut command = Command::new(self.prefix.first().map_or("env", String::as_str));
        command.args(self.prefix.get(1..).unwrap_or_default()).stdin(Stdio::null());
        command
    }
}

/// Figures of one operation under one contestant, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    min: f64,
    median: f64,
    max: f64,
}

impl Figures {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |index: usize| samples.get(index).copied().unwrap_or_default();
        Self { min: at(0), median: at(samples.len() / 2), max: at(samples.len().saturating_sub(1)) }
    }
}

type Samples = BTreeMap<(String, usize), Vec<f64>>;

/// Runs everything and prints the table.
///
/// # Errors
/// When something cannot be built or a contestant fails.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<bool> {
    let folder = root.join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let micro = build_guest(root, &folder, "micro")?;
    let notify = build_guest(root, &folder, "notify")?;
    let contestants = contestants(root, options)?;
    let loads = if options.quick { Vec::new() } else { apps::loads(root, &options.only)? };
    let is_load = |name: &String| loads.iter().any(|load| load.name == *name);
    let has_operations = options.only.is_empty() || !options.only.iter().all(is_load);
    let mut samples = Samples::new();
    let mut order = Vec::new();
    let mut keep = |operation: String, index: usize, nanos: f64| {
        if !order.contains(&operation) {
            order.push(operation.clone());
        }
        samples.entry((operation, index)).or_default().push(nanos);
    };
    for turn in 1..=options.turns {
        for (index, contestant) in contestants.iter().enumerate() {
            note(&format!("turn {turn} of {}: {}", options.turns, contestant.name));
            if has_operations {
                let figures = measure(contestant, &micro, options)?;
                figures.into_iter().for_each(|(operation, nanos)| keep(operation, index, nanos));
            }
            if options.only.is_empty() {
                let cold = paired::cold_call(contestant, (&micro, &notify))?;
                cold.into_iter().for_each(|(operation, nanos)| keep(operation, index, nanos));
                if index > 0 && !options.quick {
                    let [native, ours] = paired::shared(contestant, &micro)?;
                    keep(paired::SHARED.to_owned(), 0, native);
                    keep(paired::SHARED.to_owned(), index, ours);
                }
            }
        }
        // All contestants of a load in a row: it takes seconds.
        for load in &loads {
            for (index, contestant) in contestants.iter().enumerate() {
                keep(load.name.clone(), index, apps::measure(root, contestant, load)?);
            }
        }
    }
    let names: Vec<&str> = contestants.iter().map(|c| c.name.as_str()).collect();
    let results = samples.into_iter().map(|(key, values)| (key, Figures::of(values))).collect();
    note(&table(&names, &order, &results));
    let json =
        serde_json::to_string_pretty(&Report { contestants: names, results: named(&order, &results) })?;
    std::fs::write(folder.join("micro.json"), json)?;
    note("also in target/bench/micro.json");
    Ok(true)
}

/// Compiles a guest program; static, so that it needs nothing of a root file system.
fn build_guest(root: &Path, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let binary = folder.join(name);
    let status = Command::new("gcc")
        .args(["-O2", "-static", "-pthread", "-Wno-unused-result", "-o"])
        .arg(&binary)
        .arg(root.join(format!("benches/guest/{name}.c")))
        .status()
        .context("running gcc")?;
    ensure!(status.success(), "benches/guest/{name}.c does not compile");
    Ok(binary)
}

/// Builds `runsc` as a user would, and says where it is.
pub(crate) fn build_runsc(root: &Path) -> anyhow::Result<PathBuf> {
    let built =
        Command::new("cargo").args(["build", "--release", "-p", "runsc"]).current_dir(root).status()?;
    ensure!(built.success(), "runsc does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/runsc"))
}

fn contestants(root: &Path, options: &Options) -> anyhow::Result<Vec<Contestant>> {
    let ours = build_runsc(root)?;
    let mut all = vec![Contestant { name: "native".to_owned(), prefix: Vec::new() }];
    let chosen = PLATFORMS.iter().filter(|name| works(&ours, name)).map(|name| (*name).to_owned());
    let chosen = if options.platforms.is_empty() { chosen.collect() } else { options.platforms.clone() };
    for platform in &chosen {
        let prefix = [&ours.display().to_string(), "--platform", platform, "do"].map(str::to_owned).to_vec();
        all.push(Contestant { name: platform.clone(), prefix });
    }
    for path in &options.peers {
        let path = path.display().to_string();
        all.push(Contestant { name: path.clone(), prefix: vec![path, "do".to_owned()] });
    }
    Ok(all)
}

/// Whether `runsc` says that a platform works here.
fn works(runsc: &Path, platform: &str) -> bool {
    let output = Command::new(runsc).args(["help", "platforms"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let works = |line: &str| line.split_whitespace().take(2).eq([platform, "yes"]);
    let works = text.lines().any(works);
    if !works {
        note(&format!("{platform} does not work here"));
    }
    works
}

/// One turn of one contestant: every operation, and the time of a whole command that does nothing.
fn measure(contestant: &Contestant, micro: &Path, options: &Options) -> anyhow::Result<Vec<(String, f64)>> {
    let scratch = std::env::temp_dir();
    let command = |args: &[&str]| {
        let mut command = contestant.command();
        command.arg(micro).args(args).current_dir(&scratch);
        command
    };
    let mut args = if options.quick { vec!["-q"] } else { Vec::new() };
    args.extend(options.only.iter().map(String::as_str));
    let output = command(&args).stderr(Stdio::inherit()).output().context("running the guest program")?;
    ensure!(output.status.success(), "{}: {}", contestant.name, output.status);
    let mut figures = parse(&String::from_utf8_lossy(&output.stdout))?;
    if options.only.is_empty() {
        let start = Instant::now();
        let status = command(&["--nothing"]).status()?;
        ensure!(status.success(), "{}: {status}", contestant.name);
        figures.push(("whole_command".to_owned(), start.elapsed().as_nanos() as f64));
    }
    Ok(figures)
}

/// `NAME NANOSECONDS` lines.
fn parse(text: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let line = |line: &str| {
        let (name, nanos) = line.split_once(' ').with_context(|| format!("not a figure: {line:?}"))?;
        Ok((name.to_owned(), nanos.trim().parse().with_context(|| format!("not a figure: {line:?}"))?))
    };
    text.lines().map(line).collect()
}

#[derive(Serialize)]
struct Report<'a> {
    contestants: Vec<&'a str>,
    results: BTreeMap<&'a str, Vec<Figures>>,
}

fn named<'a>(
    order: &'a [String],
    results: &BTreeMap<(String, usize), Figures>,
) -> BTreeMap<&'a str, Vec<Figures>> {
    let of = |operation: &String| {
        let own = results.iter().filter(|((name, _), _)| name == operation);
        own.map(|(_, figures)| figures.clone()).collect()
    };
    order.iter().map(|operation| (operation.as_str(), of(operation))).collect()
}

fn table(names: &[&str], order: &[String], results: &BTreeMap<(String, usize), Figures>) -> String {
    let mut text = format!("| operation | {} |\n|---|", names.join(" | "));
    text.push_str(&"---|".repeat(names.len()));
    for operation in order {
        text.push_str(&format!("\n| {operation} |"));
        let native = results.get(&(operation.clone(), 0)).map_or(0.0, |figures| figures.median);
        for index in 0..names.len() {
            match results.get(&(operation.clone(), index)) {
                Some(figures) if index == 0 => text.push_str(&format!(" {} |", shown(figures.median))),
                Some(figures) => {
                    let ratio = if native > 0.0 { figures.median / native } else { 0.0 };
                    text.push_str(&format!(" {} ({ratio:.2}x) |", shown(figures.median)));
                }
                None => text.push_str(" – |"),
            }
        }
    }
    text
}

/// Nanoseconds in the unit that reads best.
fn shown(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n => format!("{:.2} ms", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Options, parse, shown};

    fn options(words: &[&str]) -> anyhow::Result<Options> {
        Options::parse(words.iter().map(|&word| word.to_owned()))
    }

    #[test]
    fn words_are_understood_or_refused_by_name() {
        let parsed = options(&["--turns", "3", "--quick", "stat"]).expect("good");
        assert_eq!((parsed.turns, parsed.quick, parsed.only.as_slice()), (3, true, &["stat".to_owned()][..]));
        assert!(options(&["--turns", "x"]).expect_err("bad").to_string().contains("\"x\""));
        assert!(options(&["--moon"]).expect_err("bad").to_string().contains("--moon"));
    }

    #[test]
    fn figures_are_medians_with_their_spread() {
        let figures = Figures::of(vec![3.0, 1.0, 9.0]);
        assert_eq!((figures.min, figures.median, figures.max), (1.0, 3.0, 9.0));
        assert_eq!(parse("stat 12.5\n").expect("a figure"), [("stat".to_owned(), 12.5)]);
        assert!(parse("nonsense").is_err());
        assert_eq!([shown(12.0), shown(1500.0), shown(2.5e6)], ["12 ns", "1.5 µs", "2.50 ms"]);
    }
}
