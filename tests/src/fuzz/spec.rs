//! An engine to `runsc`: the specification of a container.

use std::cell::OnceCell;

/// A bundle's `config.json`. An error names the file.
pub fn bundle(data: &[u8]) {
    thread_local! {
        static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(folder.path().join("rootfs")).expect("a folder");
            folder
        });
        let config = folder.path().join(oci::CONFIG);
        std::fs::write(&config, data).expect("a file");
        for error in [oci::load(folder.path()).err(), oci::load_process(&config).err()].into_iter().flatten()
        {
            assert!(error.to_string().contains(oci::CONFIG), "{error}");
        }
    });
}

/// The template, and two processes.
pub fn seeds() -> Vec<Vec<u8>> {
    let template = serde_json::to_vec(&oci::template()).unwrap_or_default();
    let process = br#"{"cwd":"/","args":["a"],"env":["A=b"],"user":{"uid":1,"gid":2},"rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}]}"#;
    vec![template, process.to_vec(), br#"{"ociVersion":"1.0.0","root":{"path":"rootfs"}}"#.to_vec()]
}
