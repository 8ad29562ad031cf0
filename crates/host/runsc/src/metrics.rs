//! `runsc export-metrics` and `metric-server`: what sandboxes have counted, as Prometheus reads it (OpenMetrics
//! text).
//!
//! A sandbox is asked through its control socket, and has to answer soon. What it says is its own affair: a guest
//! that took its Sentry over can lie about itself, but about nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use control::Client;
use control::metrics::{Family, Kind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use sandbox::{State, StateRoot, Status};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::commands::print;

/// What the text is, as OpenMetrics 1.0 names it.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a sandbox may take to answer: others wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most sandboxes that are asked at a time.
const ASKED_AT_ONCE: usize = 16;

/// Print what the sandbox of a container has counted.
#[derive(Args, Debug)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) prefix: Prefix,
    /// Container
    pub(crate) id: String,
}

/// Serve what all sandboxes have counted over HTTP.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) prefix: Prefix,
}

/// How metrics are called.
#[derive(Args, Debug)]
pub(crate) struct Prefix {
    /// What the names of metrics begin with
    #[arg(long = "exporter-prefix", default_value = "runsc_", value_name = "PREFIX", value_parser = prefix)]
    pub(crate) text: String,
}

/// Metrics have names of letters, digits and underscores.
fn prefix(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match text.chars().all(good) && !text.starts_with(|c: char| c.is_ascii_digit()) {
        true => Ok(text.into()),
        false => Err("not letters, digits and underscores behind a letter".into()),
    }
}

/// Runs `export-metrics`.
pub(crate) fn export(root: &StateRoot, arguments: &Export) -> Result<u8> {
    let state = {
        let container = root.open(&arguments.id)?;
        container.require(&[Status::Created, Status::Running], "tell the metrics of")?;
        match container.sandbox() {
            Some(sandbox) => {
                bail!("container {:?} is part of sandbox {sandbox:?}: ask for that", arguments.id)
            }
            None => container.state().clone(),
        }
    };
    let families = ask(&root.dir_of(&state.id)?)?;
    print(text(&arguments.prefix.text, Vec::new(), vec![(state, Some(families))])?.trim_end())
}

/// Runs `metric-server` until it is killed.
pub(crate) fn serve(root: &StateRoot, address: Option<&str>, arguments: &Serve) -> Result<u8> {
    let address =
        address.ok_or_else(|| anyhow!("--metric-server=ADDRESS is missing: HOST:PORT, or a path"))?;
    let server = match address.starts_with('/') {
        true => Server::http_unix(Path::new(address)),
        false => Server::http(address),
    };
    let server = server.map_err(|error| anyhow!("--metric-server {address:?}: {error}"))?;
    for request in server.incoming_requests() {
        let page = page(root, &arguments.prefix.text, &request);
        // Who asked may be gone; that is no concern of the next.
        let _ = request.respond(page);
    }
    bail!("--metric-server {address:?}: nothing comes any more")
}

type Page = Response<std::io::Cursor<Vec<u8>>>;

fn page(root: &StateRoot, prefix: &str, request: &Request) -> Page {
    let path = request.url().split('?').next().unwrap_or_default();
    match (request.method(), path) {
        (Method::Get, "/metrics") => match all(root).and_then(|all| text(prefix, counts(&all), all)) {
            Ok(text) => {
                let page = Response::from_string(text);
                match Header::from_bytes("Content-Type", CONTENT_TYPE) {
                    Ok(header) => page.with_header(header),
                    Err(()) => page,
                }
            }
            Err(error) => Response::from_string(format!("{error:#}\n")).with_status_code(500),
        },
        (Method::Get, "/") => Response::from_string("runsc: see /metrics\n"),
        (Method::Get, _) => Response::from_string("only /metrics is here\n").with_status_code(404),
        _ => Response::from_string("only GET is answered\n").with_status_code(405),
    }
}

/// Every sandbox, with what it says when it does.
type Told = Vec<(State, Option<Vec<Family>>)>;

fn all(root: &StateRoot) -> Result<Told> {
    let living = |state: &State| matches!(state.status, Status::Created | Status::Running | Status::Paused);
    let states: Vec<State> = root.sandboxes()?.into_iter().filter(living).collect();
    let mut told = Vec::with_capacity(states.len());
    for some in states.chunks(ASKED_AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|state| scope.spawn(|| tell(root, state))).collect();
            told.extend(
                some.iter().zip(asked).map(|(state, thread)| (state.clone(), thread.join().ok().flatten())),
            );
        });
    }
    Ok(told)
}

/// What a sandbox says; one that is paused cannot.
fn tell(root: &StateRoot, state: &State) -> Option<Vec<Family>> {
    if state.status == Status::Paused {
        return None;
    }
    let told = root.dir_of(&state.id).map_err(anyhow::Error::from).and_then(|dir| ask(&dir));
    told.inspect_err(|error| tracing::warn!(id = state.id, %error, "a sandbox tells no metrics")).ok()
}

fn ask(dir: &Path) -> Result<Vec<Family>> {
    let client = Client::connect(dir)?;
    client.set_patience(Some(PATIENCE))?;
    client.metrics().context("metrics of the sandbox")
}

/// What there is to say of all sandboxes together.
fn counts(told: &Told) -> Vec<Family> {
    let running = told.iter().filter(|(state, _)| state.status == Status::Running).count() as u64;
    let silent = told.iter().filter(|(_, families)| families.is_none()).count() as u64;
    vec![
        Family::single("num_sandboxes_present", "Sandboxes there are", Kind::Gauge, told.len() as u64),
        Family::single("num_sandboxes_running", "Sandboxes whose program runs", Kind::Gauge, running),
        Family::single("num_cannot_export", "Sandboxes that did not answer", Kind::Gauge, silent),
    ]
}

/// The metrics of these sandboxes, and those that are no sandbox's, in OpenMetrics text; the names begin with
/// `prefix`.
fn text(prefix: &str, own: Vec<Family>, told: Told) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Sandboxes::new(prefix, own, told)));
    let mut text = String::new();
    encode(&mut text, &registry).context("metrics")?;
    Ok(text)
}

/// Metrics of sandboxes, those of one name together.
#[derive(Debug)]
struct Sandboxes {
    families: BTreeMap<String, Merged>,
}

/// Samples of one name.
#[derive(Debug)]
struct Merged {
    help: String,
    kind: Kind,
    samples: Vec<(Labels, u64)>,
}

type Labels = Vec<(String, String)>;

impl Sandboxes {
    fn new(prefix: &str, own: Vec<Family>, told: Told) -> Self {
        let mut all = Self { families: BTreeMap::new() };
        own.into_iter().for_each(|family| all.add(prefix, &Vec::new(), family));
        for (state, families) in told {
            let labels = labels(&state);
            families.into_iter().flatten().for_each(|family| all.add(prefix, &labels, family));
        }
        all
    }

    /// Adds one of a sandbox. Where sandboxes disagree about what a name means, the first that said so is believed.
    fn add(&mut self, prefix: &str, labels: &Labels, family: Family) {
        let merged = self.families.entry(format!("{prefix}{}", family.name)).or_insert_with(|| Merged {
            help: family.help.clone(),
            kind: family.kind,
            samples: Vec::new(),
        });
        if merged.kind != family.kind {
            return;
        }
        for (value, count) in family.samples {
            let own = family.label.iter().map(|label| (label.clone(), value.clone()));
            merged.samples.push((labels.iter().cloned().chain(own).collect(), count));
        }
    }
}

/// What tells a sandbox from others: its id, and for a pod of Kubernetes its name and namespace.
fn labels(state: &State) -> Labels {
    const ANNOTATIONS: [(&str, &str); 2] = [
        ("pod_name", "io.kubernetes.cri.sandbox-name"),
        ("namespace_name", "io.kubernetes.cri.sandbox-namespace"),
    ];
    let annotated = ANNOTATIONS
        .iter()
        .filter_map(|(label, key)| Some(((*label).to_owned(), state.annotations.get(*key)?.clone())));
    [("sandbox".to_owned(), state.id.clone())].into_iter().chain(annotated).collect()
}

impl Collector for Sandboxes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, merged) in &self.families {
            let kind = match merged.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(name, &merged.help, None, kind)?;
            for (labels, value) in &merged.samples {
                let mut sample = family.encode_family(labels)?;
                match merged.kind {
                    Kind::Counter => sample.encode_counter::<NoLabelSet, u64, u64>(value, None)?,
                    Kind::Gauge => sample.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX))?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use control::metrics::{Family, Kind};
    use sandbox::{State, Status};

    use super::{counts, prefix, text};

    fn state(id: &str, annotations: &[(&str, &str)]) -> State {
        let pairs = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        State {
            oci_version: "1.2.0".into(),
            id: id.into(),
            status: Status::Running,
            pid: 1,
            bundle: "/b".into(),
            annotations: BTreeMap::from_iter(pairs),
        }
    }

    #[test]
    fn samples_of_one_name_stand_together_with_their_sandboxes() {
        let calls = Family {
            name: "syscalls".into(),
            help: "calls".into(),
            kind: Kind::Counter,
            label: Some("name".into()),
            samples: vec![("read".into(), 2), ("a\"b\n".into(), 1)],
        };
        let tasks = Family::single("tasks", "threads", Kind::Gauge, 3);
        let told = vec![
            (state("a", &[("io.kubernetes.cri.sandbox-name", "web")]), Some(vec![calls.clone(), tasks])),
            (state("b", &[]), Some(vec![Family { kind: Kind::Gauge, ..calls.clone() }])),
            (state("c", &[]), None),
        ];
        let text = text("runsc_", counts(&told), told).expect("text");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE runsc_num_cannot_export gauge",
                "runsc_num_cannot_export 1",
                "# TYPE runsc_num_sandboxes_present gauge",
                "runsc_num_sandboxes_present 3",
                "# TYPE runsc_num_sandboxes_running gauge",
                "runsc_num_sandboxes_running 3",
                "# TYPE runsc_syscalls counter",
                "runsc_syscalls_total{sandbox=\"a\",pod_name=\"web\",name=\"read\"} 2",
                "runsc_syscalls_total{sandbox=\"a\",pod_name=\"web\",name=\"a\\\"b\\n\"} 1",
                "# TYPE runsc_tasks gauge",
                "runsc_tasks{sandbox=\"a\",pod_name=\"web\"} 3",
                "# EOF",
            ]
        );
    }

    #[test]
    fn prefixes_are_names() {
        assert_eq!(prefix("my_"), Ok("my_".into()));
        assert!(prefix("9_").is_err() && prefix("a b").is_err() && prefix("a{").is_err());
    }
}
