//! Allow-lists of host system calls: a table with a reason a row, and the filter it becomes.
//!
//! The tables are data that a reviewer reads (each process has its own); this is what they are made of.
//! Everything that is not in a table kills the process, and so does a call of another architecture.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Why a process cannot be locked in.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The table does not become a filter.
    #[error("compiling the table: {0}")]
    Compile(String),
    /// The host refused the filter.
    #[error("installing the filter: {0}")]
    Install(String),
}

/// A condition on an argument: its bits under `mask` must equal `value`.
#[derive(Clone, Copy, Debug)]
pub struct ArgCheck {
    /// Which argument, from 0.
    pub index: u8,
    /// Bits that matter, of the lower 32.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// The lower half of argument `index`, under `mask`, is `value`.
pub const fn check(index: u8, mask: u32, value: u32) -> ArgCheck {
    ArgCheck { index, mask, value }
}

/// Argument `index` is exactly `value`, as far as its lower half says.
pub const fn equals(index: u8, value: u32) -> ArgCheck {
    check(index, u32::MAX, value)
}

/// A host system call a process needs.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number.
    pub nr: libc::c_long,
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub reason: &'static str,
    /// Conditions, all of which must hold, in any one of the lists; no list means any arguments.
    pub any_of: &'static [&'static [ArgCheck]],
}

/// A table of [`Rule`]s: `SYS_read => "reason";`, or `SYS_fcntl => "reason", &[&[check(..)], ..];`.
#[macro_export]
macro_rules! seccomp_rules {
    (@any) => { &[] };
    (@any $any_of:expr) => { $any_of };
    ($($nr:ident => $reason:literal $(, $any_of:expr)?;)*) => {
        &[$($crate::seccomp::Rule {
            nr: libc::$nr,
            name: stringify!($nr),
            reason: $reason,
            any_of: $crate::seccomp_rules!(@any $($any_of)?),
        }),*]
    };
}

/// A table as a filter.
#[derive(Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles `rules`. A call may have several rows (of several tables): one of them must allow it.
    ///
    /// # Errors
    /// When the table is too large or a condition makes no sense.
    pub fn compile(rules: &[Rule]) -> Result<Self, SeccompError> {
        let failed = |error: seccompiler::BackendError| SeccompError::Compile(error.to_string());
        let mut by_number: BTreeMap<_, Vec<SeccompRule>> = BTreeMap::new();
        for rule in rules {
            let lists = rule.any_of.iter().map(|list| {
                let conditions = list.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
                SeccompRule::new(conditions)
            });
            let lists = lists.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            match by_number.entry(rule.nr) {
                Entry::Vacant(entry) => drop(entry.insert(lists)),
                // No list means any arguments, and stays so.
                Entry::Occupied(mut entry) if lists.is_empty() => entry.get_mut().clear(),
                Entry::Occupied(entry) if entry.get().is_empty() => {}
                Entry::Occupied(mut entry) => entry.get_mut().extend(lists),
            }
        }
        let (deny, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
        let filter = SeccompFilter::new(by_number, deny, allow, TargetArch::x86_64).map_err(failed)?;
        BpfProgram::try_from(filter).map(Self).map_err(failed)
    }

    /// Installs it on the calling thread, and on those it starts later. Sets `no_new_privs`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn install(&self) -> Result<(), SeccompError> {
        seccompiler::apply_filter(&self.0).map_err(|error| SeccompError::Install(error.to_string()))
    }

    /// Installs it on every thread of the process.
    ///
    /// # Errors
    /// When the host refuses, or a thread has a filter of its own already.
    pub fn install_on_all_threads(&self) -> Result<(), SeccompError> {
        seccompiler::apply_filter_all_threads(&self.0)
            .map_err(|error| SeccompError::Install(error.to_string()))
    }
}

fn condition(check: &ArgCheck) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(
        check.index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(u64::from(check.mask)),
        u64::from(check.value),
    )
}

#[cfg(test)]
mod tests {
    use super::{Filter, Rule, equals};

    static TABLE: &[Rule] = seccomp_rules! {
        SYS_read => "reading";
        SYS_fcntl => "flags", &[&[equals(1, 3)]];
    };

    #[test]
    fn a_table_becomes_a_filter() {
        assert_eq!((TABLE[0].name, TABLE[1].any_of.len()), ("SYS_read", 1));
        Filter::compile(TABLE).expect("a small table");
    }
}
