//! What containerd's configuration says about this runtime: the options of a task, and the file that they name.
//!
//! The file has the keys of gVisor's shim; every flag of `runsc` can be set in its table `runsc_config`. The options
//! of containerd's own shim for runc are understood as far as they make sense here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message};
use containerd_shim_protos::shim::oci;
use serde::{Deserialize, Serialize};

use crate::error::ShimError;

/// Directory of containers' states when nothing else is said; below it one for each of containerd's namespaces.
const ROOT: &str = "/run/containerd/runsc";
/// What the options name themselves as.
const OPTIONS: &str = "io.containerd.runsc.v1.options";
/// Where a bundle keeps it.
const FILE: &str = "shim.json";

/// How to call `runsc`, and how to treat the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The program.
    pub(crate) binary_name: PathBuf,
    /// Directory of containers' states.
    pub(crate) root: PathBuf,
    /// Control groups for the shim itself.
    pub(crate) shim_cgroup: String,
    /// Owner of the standard streams, when they are to have one.
    pub(crate) io_uid: u32,
    /// Its group.
    pub(crate) io_gid: u32,
    /// Taken for gVisor's sake: the shim's log goes where containerd reads it.
    pub(crate) log_path: String,
    /// Taken likewise: containerd's own level decides.
    pub(crate) log_level: String,
    /// Flags of `runsc`.
    pub(crate) runsc_config: BTreeMap<String, Flag>,
}

/// Value of a flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Flag {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            binary_name: "runsc".into(),
            root: ROOT.into(),
            shim_cgroup: String::new(),
            io_uid: 0,
            io_gid: 0,
            log_path: String::new(),
            log_level: String::new(),
            runsc_config: BTreeMap::new(),
        }
    }
}

impl Config {
    /// From the options of a request; none of them is the default.
    pub(crate) fn from_options(options: Option<&Any>) -> Result<Self, ShimError> {
        let Some(options) = options.filter(|options| !options.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let bad = |error: protobuf::Error| invalid(&options.type_url, &error);
        match options.type_url.rsplit('/').next().unwrap_or_default() {
            "containerd.runc.v1.Options" => {
                Ok(Self::from_runc(&oci::Options::parse_from_bytes(&options.value).map_err(bad)?))
            }
            name if name.ends_with("runtimeoptions.v1.Options") => {
                Named::parse(&options.value).map_err(bad)?.read()
            }
            name => Err(invalid("options", &format!("{name} is not understood"))),
        }
    }

    fn from_runc(options: &oci::Options) -> Self {
        let mut config = Self::default();
        if !options.binary_name.is_empty() {
            config.binary_name = PathBuf::from(&options.binary_name);
        }
        if !options.root.is_empty() {
            config.root = PathBuf::from(&options.root);
        }
        config.shim_cgroup.clone_from(&options.shim_cgroup);
        (config.io_uid, config.io_gid) = (options.io_uid, options.io_gid);
        if options.systemd_cgroup {
            config.runsc_config.insert("systemd-cgroup".into(), Flag::Bool(true));
        }
        config
    }

    fn parse(text: &str, from: &str) -> Result<Self, ShimError> {
        toml::from_str(text).map_err(|error| invalid(from, &error.to_string().trim().replace('\n', " ")))
    }

    /// The flags for `runsc`, as words.
    pub(crate) fn flags(&self) -> Vec<String> {
        let word = |(name, value): (&String, &Flag)| match value {
            Flag::Bool(value) => format!("--{name}={value}"),
            Flag::Number(value) => format!("--{name}={value}"),
            Flag::Text(value) => format!("--{name}={value}"),
        };
        self.runsc_config.iter().map(word).collect()
    }

    /// Keeps it in a bundle, for when this shim is no more.
    pub(crate) fn save(&self, bundle: &Path) -> Result<(), ShimError> {
        let path = bundle.join(FILE);
        let text = serde_json::to_vec(self).map_err(|error| invalid(FILE, &error))?;
        std::fs::write(&path, text).map_err(ShimError::io(&path))
    }

    /// What a bundle keeps. The default when there is nothing: then there is no container either.
    pub(crate) fn load(bundle: &Path) -> Self {
        let read = || serde_json::from_slice(&std::fs::read(bundle.join(FILE)).ok()?).ok();
        read().unwrap_or_default()
    }
}

fn invalid(what: &str, reason: &impl ToString) -> ShimError {
    ShimError::Invalid { what: what.into(), reason: reason.to_string() }
}

/// `runtimeoptions.v1.Options`: how containerd passes the options of a runtime that it does not know.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    type_url: String,
    config_path: String,
    config_body: String,
}

impl Named {
    fn parse(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut named = Self::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag >> 3 {
                1 => named.type_url = input.read_string()?,
                2 => named.config_path = input.read_string()?,
                3 => named.config_body = input.read_string()?,
                _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
            }
        }
        Ok(named)
    }

    fn read(&self) -> Result<Config, ShimError> {
        if !self.type_url.is_empty() && self.type_url != OPTIONS {
            return Err(invalid("TypeUrl", &format!("{:?} is not {OPTIONS:?}", self.type_url)));
        }
        if !self.config_path.is_empty() {
            let path = Path::new(&self.config_path);
            let text = std::fs::read_to_string(path).map_err(ShimError::io(path))?;
            return Config::parse(&text, &self.config_path);
        }
        Config::parse(&self.config_body, "ConfigBody")
    }
}

#[cfg(test)]
mod tests {
    use super::{Any, Config, Named, ShimError};

    fn options(name: &str, value: Vec<u8>) -> Result<Config, ShimError> {
        Config::from_options(Some(&Any { type_url: name.into(), value, ..Any::default() }))
    }

    fn field(number: u8, text: &str) -> Vec<u8> {
        [&[number << 3 | 2, text.len() as u8], text.as_bytes()].concat()
    }

    #[test]
    fn the_file_of_gvisor_is_understood() {
        let text = "log_path = \"/x\"\nbinary_name = \"/b/runsc\"\nroot = \"/r\"\n\
                    [runsc_config]\nplatform = \"ptrace\"\ndebug = true\n\"num\" = 5\n";
        let config = Config::parse(text, "x").expect("good");
        assert_eq!(config.flags(), ["--debug=true", "--num=5", "--platform=ptrace"]);
        assert_eq!(config.binary_name.to_str(), Some("/b/runsc"));
        let error = Config::parse("binary = \"x\"", "/f.toml").expect_err("unknown").to_string();
        assert!(error.contains("/f.toml") && error.contains("binary"), "{error}");
    }

    #[test]
    fn options_name_a_file_or_are_one() {
        assert_eq!(Config::from_options(None).expect("none"), Config::default());
        let body = [field(1, super::OPTIONS), field(3, "root = \"/r\"")].concat();
        let config = options("runtimeoptions.v1.Options", body).expect("good");
        assert_eq!(config.root.to_str(), Some("/r"));
        let error = options("runtimeoptions.v1.Options", field(2, "/no/such/file")).expect_err("no file");
        assert!(error.to_string().contains("/no/such/file"));
        assert!(options("runtimeoptions.v1.Options", field(1, "other")).is_err());
        assert!(options("runtimeoptions.v1.Options", vec![0x0a, 200]).is_err());
        assert!(options("what.is.this", Vec::new()).is_err());
        assert_eq!(Named::parse(&[]).expect("empty"), Named::default());
    }

    #[test]
    fn those_of_runc_are_understood() {
        let body = [field(6, "/b/runsc"), field(7, "/r"), vec![0x48, 1]].concat();
        let config = options("containerd.runc.v1.Options", body).expect("good");
        assert_eq!(
            (config.root.to_str(), config.flags()),
            (Some("/r"), vec!["--systemd-cgroup=true".into()])
        );
    }

    #[test]
    fn a_bundle_keeps_it() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(Config::load(dir.path()), Config::default());
        let config = Config::parse("root = \"/r\"\n[runsc_config]\na = \"b\"", "x").expect("good");
        config.save(dir.path()).expect("saves");
        assert_eq!(Config::load(dir.path()), config);
    }
}
