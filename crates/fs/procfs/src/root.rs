//! The top directory: processes by id, `self`, and the texts of the system.

use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use kernfs::{Directory, Listed, Spec, StaticDir};
use vfs::Result;

use crate::pid::pid_dir;
use crate::source::ProcConfig;
use crate::system;

/// Where ids begin among the keys of the listing, behind everything with a name.
const FIRST_ID_KEY: u64 = 1 << 16;

pub(crate) struct Root {
    config: Arc<ProcConfig>,
    named: StaticDir,
}

impl Root {
    pub(crate) fn new(config: Arc<ProcConfig>) -> Self {
        let processes = Arc::clone(&config.processes);
        let me = move || {
            let (pid, _) = processes.current().ok_or(Errno::ENOENT)?;
            Ok(pid.to_string().into_bytes())
        };
        let processes = Arc::clone(&config.processes);
        let thread = move || {
            let (pid, tid) = processes.current().ok_or(Errno::ENOENT)?;
            Ok(format!("{pid}/task/{tid}").into_bytes())
        };
        let named = system::files(&config)
            .with("self", Spec::link(me))
            .with("thread-self", Spec::link(thread))
            .with("mounts", Spec::symlink("self/mounts"))
            .with("net", Spec::symlink("self/net"));
        Self { config, named }
    }
}

/// A decimal id without a sign or leading zeroes.
pub(crate) fn parse_id(name: &[u8]) -> Option<i32> {
    let id: i32 = std::str::from_utf8(name).ok()?.parse().ok()?;
    (id >= 0 && id.to_string().as_bytes() == name).then_some(id)
}

impl Directory for Root {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let Some(pid) = parse_id(name) else { return self.named.lookup(name) };
        let process = self.config.processes.process(pid).ok_or(Errno::ENOENT)?;
        Ok(pid_dir(&self.config, process, true))
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        let mut all = if from < FIRST_ID_KEY { self.named.list(from)? } else { Vec::new() };
        let pids = self.config.processes.pids().into_iter();
        let listed = |pid: i32| Listed {
            key: FIRST_ID_KEY + u64::from(pid.unsigned_abs()),
            name: pid.to_string().into_bytes(),
            kind: FileType::Directory,
        };
        all.extend(pids.map(listed).filter(|listed| listed.key >= from));
        Ok(all)
    }
}
