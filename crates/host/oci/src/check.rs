//! The checks on a spec. Every error names the field.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::OciError;

const NAMESPACES: &[&str] = &["pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"];
/// Types of mounts the Sentry has, and those that are binds by another name.
const MOUNT_TYPES: &[&str] =
    &["bind", "none", "proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// Makes errors about one file.
struct Checker<'a> {
    file: &'a Path,
}

impl Checker<'_> {
    fn missing(&self, field: impl Into<String>) -> OciError {
        OciError::Missing { file: self.file.into(), field: field.into() }
    }

    fn invalid(&self, field: impl Into<String>, value: &str, reason: &'static str) -> OciError {
        OciError::Invalid { file: self.file.into(), field: field.into(), value: value.into(), reason }
    }

    /// The string at `pointer` (RFC 6901), which must be there.
    fn text<'v>(&self, value: &'v Value, pointer: &str, field: &str) -> Result<&'v str, OciError> {
        match value.pointer(pointer) {
            None | Some(Value::Null) => Err(self.missing(field)),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.invalid(field, &other.to_string(), "not a string")),
        }
    }

    fn absolute(&self, field: &str, path: &str) -> Result<(), OciError> {
        if path.contains('\0') {
            return Err(self.invalid(field, path, "contains a NUL"));
        }
        if path.starts_with('/') { Ok(()) } else { Err(self.invalid(field, path, "not an absolute path")) }
    }

    fn version(&self, value: &Value) -> Result<(), OciError> {
        let version = self.text(value, "/ociVersion", "ociVersion")?;
        let numbers = version.split_once(['-', '+']).map_or(version, |(numbers, _)| numbers);
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(1)), Some(Ok(_)), Some(Ok(_)), None) => Ok(()),
            (Some(Ok(_)), Some(Ok(_)), Some(Ok(_)), None) => {
                Err(self.invalid("ociVersion", version, "only versions 1.x are supported"))
            }
            _ => Err(self.invalid("ociVersion", version, "not a version")),
        }
    }

    fn process(&self, value: &Value) -> Result<(), OciError> {
        if !value.get("process").is_some_and(Value::is_object) {
            return Err(self.missing("process"));
        }
        match value.pointer("/process/args").and_then(Value::as_array) {
            Some(args) if !args.is_empty() => {}
            _ => return Err(self.missing("process.args")),
        }
        self.absolute("process.cwd", self.text(value, "/process/cwd", "process.cwd")?)?;
        let env = value.pointer("/process/env").and_then(Value::as_array);
        for (index, variable) in env.into_iter().flatten().enumerate() {
            let text = variable.as_str().unwrap_or_default();
            if !text.contains('=') {
                return Err(self.invalid(format!("process.env[{index}]"), text, "not NAME=value"));
            }
        }
        self.limits(value)
    }

    fn limits(&self, value: &Value) -> Result<(), OciError> {
        let limits = value.pointer("/process/rlimits").and_then(Value::as_array);
        for (index, limit) in limits.into_iter().flatten().enumerate() {
            let number = |key| limit.get(key).and_then(Value::as_u64).unwrap_or_default();
            if number("soft") > number("hard") {
                let soft = number("soft").to_string();
                return Err(self.invalid(
                    format!("process.rlimits[{index}].soft"),
                    &soft,
                    "above the hard limit",
                ));
            }
        }
        Ok(())
    }

    fn mounts(&self, value: &Value) -> Result<(), OciError> {
        let mounts = value.get("mounts").and_then(Value::as_array);
        for (index, mount) in mounts.into_iter().flatten().enumerate() {
            let field = format!("mounts[{index}].destination");
            self.absolute(&field, self.text(mount, "/destination", &field)?)?;
            let kind = mount.get("type").and_then(Value::as_str).unwrap_or("bind");
            if !MOUNT_TYPES.contains(&kind) {
                return Err(self.invalid(format!("mounts[{index}].type"), kind, "unknown type of mount"));
            }
            let source = mount.get("source").and_then(Value::as_str);
            if source.is_none() && matches!(kind, "bind" | "none") {
                return Err(self.missing(format!("mounts[{index}].source")));
            }
            let options = mount.get("options").and_then(Value::as_array);
            let mut options = options.into_iter().flatten().filter_map(Value::as_str);
            if let Some(option) = options.find(|option| matches!(*option, "shared" | "rshared")) {
                let field = format!("mounts[{index}].options");
                return Err(self.invalid(field, option, "mounts of a sandbox cannot propagate to the host"));
            }
        }
        Ok(())
    }

    fn namespaces(&self, value: &Value) -> Result<(), OciError> {
        let namespaces = value.pointer("/linux/namespaces").and_then(Value::as_array);
        let mut seen = Vec::new();
        for (index, namespace) in namespaces.into_iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{index}].type");
            let kind = self.text(namespace, "/type", &field)?;
            if !NAMESPACES.contains(&kind) {
                return Err(self.invalid(field, kind, "unknown type of namespace"));
            }
            if seen.contains(&kind) {
                return Err(self.invalid(field, kind, "given twice"));
            }
            if let Some(path) = namespace.get("path").and_then(Value::as_str) {
                self.absolute(&format!("linux.namespaces[{index}].path"), path)?;
            }
            seen.push(kind);
        }
        Ok(())
    }
}

/// Checks a process by itself, as if it stood in a spec.
pub(crate) fn process(file: &Path, value: &Value) -> Result<(), OciError> {
    Checker { file }.process(&serde_json::json!({ "process": value }))
}

/// Checks what the typed parse would not, or not name.
pub(crate) fn raw(file: &Path, value: &Value) -> Result<(), OciError> {
    let checker = Checker { file };
    checker.version(value)?;
    checker.text(value, "/root/path", "root.path")?;
    checker.process(value)?;
    checker.mounts(value)?;
    checker.namespaces(value)
}

/// The root of the container, which must be a directory. A relative path starts at the bundle.
pub(crate) fn rootfs(file: &Path, bundle: &Path, spec: &Spec) -> Result<PathBuf, OciError> {
    let checker = Checker { file };
    let root = spec.root().as_ref().ok_or_else(|| checker.missing("root"))?;
    let path = bundle.join(root.path());
    let shown = path.to_string_lossy();
    match path.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => Err(checker.invalid("root.path", &shown, "not a directory")),
        Err(_) => Err(checker.invalid("root.path", &shown, "cannot be resolved")),
    }
}

#[cfg(test)]
mod tests {
    use crate::{CONFIG, load, template};
    use serde_json::{Value, json};

    /// What loading a bundle says when the template is changed by `change`.
    fn message(change: impl FnOnce(&mut Value)) -> String {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(dir.path().join("rootfs")).expect("mkdir");
        let mut spec = template();
        change(&mut spec);
        std::fs::write(dir.path().join(CONFIG), spec.to_string()).expect("write");
        load(dir.path()).map_or_else(|error| error.to_string(), |_| "good".into())
    }

    #[test]
    fn the_template_is_good() {
        assert_eq!(message(|_| {}), "good");
    }

    #[test]
    fn errors_name_file_and_field() {
        type Change = fn(&mut Value);
        let cases: &[(&str, Change)] = &[
            ("ociVersion", |s| s["ociVersion"] = json!("2.0.0")),
            ("ociVersion", |s| s["ociVersion"] = json!("one")),
            ("ociVersion", |s| s["ociVersion"] = Value::Null),
            ("root.path", |s| s["root"]["path"] = json!("nowhere")),
            ("root.path", |s| s["root"] = Value::Null),
            ("process: missing", |s| s["process"] = Value::Null),
            ("process.args", |s| s["process"]["args"] = json!([])),
            ("process.cwd", |s| s["process"]["cwd"] = json!("tmp")),
            ("process.env[0]", |s| s["process"]["env"] = json!(["PATH"])),
            ("mounts[0].type", |s| s["mounts"][0]["type"] = json!("floppy")),
            ("mounts[1].destination", |s| s["mounts"][1]["destination"] = json!("dev")),
            ("linux.namespaces[0].type", |s| s["linux"]["namespaces"][0]["type"] = json!("moon")),
            ("linux.namespaces[1].path", |s| s["linux"]["namespaces"][1]["path"] = json!("ns")),
            ("mounts[0].options", |s| s["mounts"][0]["options"] = json!(["rshared"])),
            ("process.rlimits[0].soft", |s| s["process"]["rlimits"][0]["soft"] = json!(4096)),
        ];
        for (field, change) in cases {
            let text = message(change);
            assert!(text.contains(field), "{text:?} does not name {field}");
            assert!(text.contains(CONFIG), "{text:?} does not name the file");
        }
    }
}
