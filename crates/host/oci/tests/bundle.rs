//! Bundles from disk: what is accepted, and what is said of what is not.

use std::path::Path;

use rampart_oci_test::{bundle, refusal};

mod rampart_oci_test {
    //! Bundles made for a test.
    use std::path::Path;

    use serde_json::Value;

    /// Writes `config` beside an empty `rootfs`.
    pub(crate) fn bundle(folder: &Path, config: &str) {
        std::fs::create_dir_all(folder.join("rootfs")).expect("a folder");
        std::fs::write(folder.join("config.json"), config).expect("a file");
    }

    /// What is said of the template after `change`.
    pub(crate) fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config: Value = serde_json::from_str(&oci::template::config(&[], false)).expect("JSON");
        change(&mut config);
        bundle(folder.path(), &config.to_string());
        let error = oci::Bundle::load(folder.path()).expect_err("must be refused").to_string();
        let named = folder.path().canonicalize().expect("there").join("config.json");
        assert!(error.contains(&named.display().to_string()), "{error} does not name the file");
        error
    }
}

#[test]
fn the_template_is_a_good_bundle() {
    let folder = tempfile::tempdir().expect("a folder");
    bundle(folder.path(), &oci::template::config(&["/bin/true".to_owned()], true));
    let loaded = oci::Bundle::load(folder.path()).expect("good");
    assert!(loaded.rootfs.ends_with("rootfs") && loaded.rootfs.is_absolute());
    assert_eq!(loaded.spec.hostname().as_deref(), Some("runsc"));
}

#[test]
fn missing_pieces_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = oci::Bundle::load(folder.path()).expect_err("no config").to_string();
    assert!(error.contains("config.json: No such file"), "{error}");
    let error = oci::Bundle::load(Path::new("/no/such/bundle")).expect_err("no bundle").to_string();
    assert!(error.contains("/no/such/bundle: No such file"), "{error}");
    bundle(folder.path(), "{ not json");
    let error = oci::Bundle::load(folder.path()).expect_err("not JSON").to_string();
    assert!(error.contains("config.json") && error.contains("line 1"), "{error}");
}

#[test]
fn fields_are_named() {
    let cases: [(fn(&mut serde_json::Value), &str); 10] = [
        (|c| c["ociVersion"] = "2.0".into(), "ociVersion"),
        (|c| c["process"]["args"] = serde_json::json!([]), "process.args"),
        (|c| c["process"]["cwd"] = "relative".into(), "process.cwd"),
        (|c| c["root"]["path"] = "elsewhere".into(), "root.path"),
        (|c| c["mounts"][0]["type"] = "ntfs".into(), "unknown mount type \"ntfs\""),
        (|c| c["mounts"][0]["options"] = serde_json::json!(["rshared"]), "mounts[0].options"),
        (|c| c["linux"]["namespaces"][0]["type"] = "quantum".into(), "quantum"),
        (|c| c["linux"]["namespaces"][1]["type"] = "pid".into(), "linux.namespaces[1].type"),
        (|c| c["linux"]["namespaces"][1]["path"] = "ns".into(), "linux.namespaces[1].path"),
        (|c| c["process"]["rlimits"][0]["soft"] = 4096.into(), "process.rlimits[0]"),
    ];
    for (change, expected) in cases {
        let said = refusal(change);
        assert!(said.contains(expected), "{said:?} does not name {expected:?}");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config: serde_json::Value =
        serde_json::from_str(&oci::template::config(&[], false)).expect("JSON");
    config["futureField"] = serde_json::json!({ "a": 1 });
    bundle(folder.path(), &config.to_string());
    oci::Bundle::load(folder.path()).expect("good");
}
