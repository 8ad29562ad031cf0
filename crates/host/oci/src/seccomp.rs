//! The seccomp profile of a spec as a filter of system calls (OCI runtime spec, "Seccomp").
//!
//! Of the entries about a call, those with conditions on its arguments are asked first, in the order of the
//! profile, then the first without. Conditions of an entry must all hold, unless two are about the same argument:
//! then each is an entry of its own, as runc and libseccomp have it. Names of no call of x86-64 are passed over, and
//! so is the list of architectures, as guests have only this one.

use std::collections::{BTreeMap, BTreeSet};

use abi::syscall;
use bpf::{Action, Arg, AsmError, Assembler, Field, Label, Program, Target};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use thiserror::Error;

/// Highest error that a filter can give.
const MAX_ERRNO: u32 = 4095;
/// What a call gets that is refused without a number (`EPERM`).
const DEFAULT_ERRNO: u32 = 1;

/// Why a profile does not become a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// An action that nobody here can take.
    #[error("linux.seccomp: SCMP_ACT_NOTIFY: there is no listener")]
    Notify,
    /// A condition on an argument that no call has.
    #[error("linux.seccomp: args: index {0}: calls have six arguments")]
    Argument(usize),
    /// It is too long.
    #[error("linux.seccomp: {0}")]
    Filter(#[from] AsmError),
}

/// What is said about one call.
#[derive(Default)]
struct Row<'a> {
    conditional: Vec<(Vec<&'a LinuxSeccompArg>, Action)>,
    otherwise: Option<Action>,
}

/// The filter that a profile asks for.
///
/// # Errors
/// When it asks for what there is not, or for too much.
pub fn filter(profile: &LinuxSeccomp) -> Result<Program, ProfileError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut rows: BTreeMap<u32, Row<'_>> = BTreeMap::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = action(entry.action(), entry.errno_ret())?;
        for number in entry.names().iter().filter_map(|name| syscall::number(name)) {
            add(rows.entry(number).or_default(), entry, action);
        }
    }
    let mut asm = Assembler::new();
    asm.load_nr();
    let unnamed = asm.label();
    let labels: Vec<(u32, Label)> = rows.keys().map(|number| (*number, asm.label())).collect();
    asm.find(&labels, unnamed);
    for ((_, label), row) in labels.iter().zip(rows.values()) {
        asm.bind(*label);
        judge(&mut asm, row, default)?;
    }
    asm.bind(unnamed);
    asm.ret(default);
    Ok(asm.finish()?)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, ProfileError> {
    let data = errno.unwrap_or(DEFAULT_ERRNO).min(MAX_ERRNO) as u16;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap(0),
        LinuxSeccompAction::ScmpActErrno => Action::Errno(data),
        LinuxSeccompAction::ScmpActTrace => Action::Trace(data),
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActNotify => return Err(ProfileError::Notify),
    })
}

fn add<'a>(row: &mut Row<'a>, entry: &'a LinuxSyscall, action: Action) {
    let conditions: Vec<&LinuxSeccompArg> = entry.args().iter().flatten().collect();
    let arguments: BTreeSet<usize> = conditions.iter().map(|condition| condition.index()).collect();
    if conditions.is_empty() {
        row.otherwise.get_or_insert(action);
    } else if arguments.len() == conditions.len() {
        row.conditional.push((conditions, action));
    } else {
        row.conditional.extend(conditions.into_iter().map(|condition| (vec![condition], action)));
    }
}

fn judge(asm: &mut Assembler, row: &Row<'_>, default: Action) -> Result<(), ProfileError> {
    for (conditions, action) in &row.conditional {
        let next = asm.label();
        for condition in conditions {
            require(asm, condition, next)?;
        }
        asm.ret(*action);
        asm.bind(next);
    }
    asm.ret(row.otherwise.unwrap_or(default));
    Ok(())
}

/// Goes on when a condition holds, else to `fails`.
fn require(asm: &mut Assembler, condition: &LinuxSeccompArg, fails: Label) -> Result<(), ProfileError> {
    let args = [Arg::A0, Arg::A1, Arg::A2, Arg::A3, Arg::A4, Arg::A5];
    let index = condition.index();
    let field = Field::Arg(args.get(index).copied().ok_or(ProfileError::Argument(index))?);
    let value = condition.value();
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => asm.if_eq(field, value, Target::Next, fails),
        LinuxSeccompOperator::ScmpCmpNe => asm.if_eq(field, value, fails, Target::Next),
        LinuxSeccompOperator::ScmpCmpGe => asm.if_ge(field, value, Target::Next, fails),
        LinuxSeccompOperator::ScmpCmpLt => asm.if_ge(field, value, fails, Target::Next),
        LinuxSeccompOperator::ScmpCmpGt => match value.checked_add(1) {
            Some(least) => asm.if_ge(field, least, Target::Next, fails),
            None => asm.jump(fails),
        },
        LinuxSeccompOperator::ScmpCmpLe => {
            if let Some(above) = value.checked_add(1) {
                asm.if_ge(field, above, fails, Target::Next);
            }
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            asm.if_masked_eq(field, value, condition.value_two().unwrap_or(0), Target::Next, fails);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bpf::{Action, SeccompData};
    use serde_json::json;

    use super::{ProfileError, filter};

    fn profile(value: serde_json::Value) -> oci_spec::runtime::LinuxSeccomp {
        serde_json::from_value(value).expect("a profile")
    }

    fn verdict(filter: &bpf::Program, nr: u32, args: [u64; 6]) -> Action {
        let arch = SeccompData::ARCH_X86_64;
        Action::from_raw(filter.run(&SeccompData { nr, arch, instruction_pointer: 0, args }))
    }

    #[test]
    fn a_profile_like_dockers_is_kept() {
        let profile = profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                { "names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" },
                    { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" },
                ] },
                { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
                ] },
                { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
                { "names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS" },
            ],
        }));
        let filter = filter(&profile).expect("a filter");
        let first = |value: u64| [value, 0, 0, 0, 0, 0];
        assert_eq!(verdict(&filter, 0, first(9)), Action::Allow);
        assert_eq!(verdict(&filter, 2, first(9)), Action::Errno(38));
        assert_eq!(verdict(&filter, 135, first(8)), Action::Allow);
        assert_eq!(verdict(&filter, 135, first(1 << 32)), Action::Errno(38));
        assert_eq!(verdict(&filter, 56, first(0x11)), Action::Allow);
        assert_eq!(verdict(&filter, 56, first(0x1000_0000)), Action::Errno(38));
        assert_eq!(verdict(&filter, 435, first(0)), Action::Errno(95));
        assert_eq!(verdict(&filter, 62, first(0)), Action::KillProcess);
    }

    #[test]
    fn every_comparison_is_of_64_bits() {
        let cases: [(&str, u64, &[(u64, bool)]); 6] = [
            ("SCMP_CMP_NE", 5, &[(5, false), (5 | 1 << 40, true)]),
            ("SCMP_CMP_LT", 1 << 33, &[(1, true), (1 << 33, false)]),
            ("SCMP_CMP_LE", u64::MAX, &[(u64::MAX, true)]),
            ("SCMP_CMP_LE", 7, &[(7, true), (8, false), (1 << 50, false)]),
            ("SCMP_CMP_GT", u64::MAX, &[(u64::MAX, false)]),
            ("SCMP_CMP_GT", 7, &[(7, false), (8, true), (1 << 50, true)]),
        ];
        for (op, value, tried) in cases {
            let entry = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 5, "value": value, "op": op }] });
            let profile = profile(json!({ "defaultAction": "SCMP_ACT_KILL", "syscalls": [entry] }));
            let filter = filter(&profile).expect("a filter");
            for (argument, allowed) in tried {
                let wanted = if *allowed { Action::Allow } else { Action::KillThread };
                assert_eq!(
                    verdict(&filter, 0, [0, 0, 0, 0, 0, *argument]),
                    wanted,
                    "{argument} {op} {value}"
                );
            }
        }
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let notify = profile(json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
        assert_eq!(filter(&notify).err(), Some(ProfileError::Notify));
        let seventh = json!([{ "names": ["read"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }]);
        let seventh = profile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": seventh }));
        assert_eq!(filter(&seventh).err(), Some(ProfileError::Argument(6)));
    }
}
