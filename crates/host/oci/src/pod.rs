//! Pods: which sandbox a container belongs to, as those who talk to runtimes annotate it.

use oci_spec::runtime::Spec;

/// Annotations of a kind: what says the role, with the words for both, and the id of the sandbox.
const ANNOTATIONS: [(&str, &str, &str, &str); 3] = [
    // containerd's CRI plugin.
    ("io.kubernetes.cri.container-type", "sandbox", "container", "io.kubernetes.cri.sandbox-id"),
    // CRI-O.
    ("io.kubernetes.cri-o.ContainerType", "sandbox", "container", "io.kubernetes.cri-o.SandboxID"),
    // dockershim and cri-dockerd.
    ("io.kubernetes.docker.type", "podsandbox", "container", "io.kubernetes.sandbox.id"),
];

/// What a container is to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has one to itself.
    Alone,
    /// Others may join it.
    Sandbox,
    /// It joins the sandbox of the container with this id.
    Member(String),
}

/// The role that annotations give. A container that does not say of which sandbox is alone.
pub fn role(spec: &Spec) -> Role {
    let annotations = spec.annotations().as_ref();
    let value = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
    for (kind, sandbox, container, id) in ANNOTATIONS {
        match (value(kind), value(id)) {
            (Some(word), _) if word == sandbox => return Role::Sandbox,
            (Some(word), Some(id)) if word == container && !id.is_empty() => {
                return Role::Member(id.to_owned());
            }
            _ => {}
        }
    }
    Role::Alone
}

#[cfg(test)]
mod tests {
    use super::{Role, role};
    use serde_json::json;

    fn of(annotations: serde_json::Value) -> Role {
        let mut spec = crate::template();
        spec["annotations"] = annotations;
        role(&serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn annotations_say_the_role() {
        assert_eq!(of(json!({})), Role::Alone);
        let kind = "io.kubernetes.cri.container-type";
        assert_eq!(of(json!({ kind: "sandbox", "io.kubernetes.cri.sandbox-id": "a" })), Role::Sandbox);
        assert_eq!(of(json!({ kind: "container" })), Role::Alone);
        let member = json!({ kind: "container", "io.kubernetes.cri.sandbox-id": "a" });
        assert_eq!(of(member), Role::Member("a".into()));
        let crio =
            json!({ "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "b" });
        assert_eq!(of(crio), Role::Member("b".into()));
    }
}
