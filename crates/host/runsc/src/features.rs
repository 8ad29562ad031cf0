//! `runsc features`: what this runtime can do (OCI runtime spec, "Features Structure").

use anyhow::Result;
use serde_json::{Value, json};

use crate::commands::print;

/// Runs `features`.
pub(crate) fn run() -> Result<u8> {
    print(&serde_json::to_string_pretty(&features())?)
}

fn features() -> Value {
    let capabilities: Vec<String> = {
        let mut all: Vec<_> = caps::all().into_iter().collect();
        all.sort_by_key(|capability| capability.index());
        all.iter().map(ToString::to_string).collect()
    };
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        // startContainer is missing: its programs would be the container's own.
        "hooks": ["prestart", "createRuntime", "createContainer", "poststart", "poststop"],
        "mountOptions": [
            "bind", "defaults", "noatime", "nodev", "noexec", "nosuid", "private", "rbind", "ro", "rprivate",
            "rro", "rslave", "runbindable", "rw", "slave", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_X86_64"],
                "knownFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
                "supportedFlags": [],
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
        "annotations": { "org.opencontainers.runtime-spec.features.runtime": "runsc" },
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn capabilities_are_named_as_in_specs() {
        let features = super::features();
        assert_eq!(features["linux"]["capabilities"][0], "CAP_CHOWN");
        assert_eq!(features["ociVersionMin"], "1.0.0");
    }
}
