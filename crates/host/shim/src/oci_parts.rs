//! The little that the shim has to know of a container's spec; the rest is for `runsc` to read.

use std::path::Path;

use oci::{Role, Spec};

use crate::error::ShimError;

fn read(bundle: &Path) -> Result<Spec, ShimError> {
    let path = bundle.join(oci::CONFIG);
    let text = std::fs::read(&path).map_err(ShimError::io(&path))?;
    serde_json::from_slice(&text)
        .map_err(|error| ShimError::Invalid { what: format!("{path:?}"), reason: error.to_string() })
}

/// The sandbox that a container joins, if it joins one.
pub(crate) fn sandbox(bundle: &Path) -> Result<Option<String>, ShimError> {
    let role = oci::role(&read(bundle)?);
    // It becomes part of a path.
    let name = |id: &String| !id.contains('/') && !id.starts_with('.');
    Ok(match role {
        Role::Member(id) if name(&id) => Some(id),
        Role::Member(_) | Role::Alone | Role::Sandbox => None,
    })
}

/// The path of a container's control groups.
pub(crate) fn cgroups_path(bundle: &Path) -> Result<Option<String>, ShimError> {
    let spec = read(bundle)?;
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    Ok(path.and_then(|path| path.to_str()).filter(|path| !path.is_empty()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::{cgroups_path, sandbox};
    use serde_json::json;

    #[test]
    fn parts_are_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |text: String| std::fs::write(dir.path().join("config.json"), text).expect("writes");
        let mut spec = oci::template();
        spec["linux"]["cgroupsPath"] = json!("/a/b");
        for (id, want) in [("one", Some("one".to_owned())), ("../one", None)] {
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": id });
            write(spec.to_string());
            assert_eq!(sandbox(dir.path()).expect("reads"), want);
        }
        assert_eq!(cgroups_path(dir.path()).expect("reads"), Some("/a/b".into()));
        write("{".into());
        assert!(sandbox(dir.path()).expect_err("bad").to_string().contains("config.json"));
    }
}
