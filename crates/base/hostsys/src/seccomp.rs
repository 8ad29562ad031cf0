//! Allow-lists of host system calls: a table with a reason a row, and the filter it becomes.
//!
//! The tables are data that a reviewer reads (each process has its own); this is what they are made of.
//! Everything that is not in a table kills the process, and so does a call of another architecture.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bpf::{Action, Arg, AsmError, Assembler, Field, Label, Program, Target};
use seccompiler::{BpfProgram, sock_filter};

/// Why a process cannot be locked in.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The table does not become a filter.
    #[error("compiling the table: {0}")]
    Compile(#[from] AsmError),
    /// A row is about a call that cannot be.
    #[error("{0} is no number of a system call")]
    Number(libc::c_long),
    /// A condition is about an argument that cannot be.
    #[error("system calls have no argument {0}")]
    Argument(u8),
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
///
/// It looks for the number by halves: a host call that has conditions on its arguments is judged each time, and a Sentry
/// makes two of them for each call of a guest.
#[derive(Debug)]
pub struct Filter(Program);

/// Calls by number: lists of conditions, one of which must hold. None means any arguments.
type Table = BTreeMap<u32, Vec<&'static [ArgCheck]>>;

impl Filter {
    /// Compiles `rules`. A call may have several rows (of several tables): one of them must allow it.
    ///
    /// # Errors
    /// When the table is too large or makes no sense.
    pub fn compile(rules: &[Rule]) -> Result<Self, SeccompError> {
        let mut table = Table::new();
        for rule in rules {
            let number = u32::try_from(rule.nr).map_err(|_| SeccompError::Number(rule.nr))?;
            match table.entry(number) {
                Entry::Vacant(entry) => drop(entry.insert(rule.any_of.to_vec())),
                // No list means any arguments, and stays so.
                Entry::Occupied(mut entry) if rule.any_of.is_empty() => entry.get_mut().clear(),
                Entry::Occupied(entry) if entry.get().is_empty() => {}
                Entry::Occupied(mut entry) => entry.get_mut().extend_from_slice(rule.any_of),
            }
        }
        let mut asm = Assembler::new();
        asm.require_x86_64(Action::KillProcess);
        let (allow, deny) = (asm.label(), asm.label());
        let rows: Vec<_> = table
            .iter()
            .map(|(number, lists)| (*number, if lists.is_empty() { allow } else { asm.label() }))
            .collect();
        asm.find(&rows, deny);
        for ((_, label), lists) in rows.iter().zip(table.values()).filter(|(_, lists)| !lists.is_empty()) {
            asm.bind(*label);
            judge(&mut asm, lists, (allow, deny))?;
        }
        asm.bind(deny);
        asm.ret(Action::KillProcess);
        asm.bind(allow);
        asm.ret(Action::Allow);
        Ok(Self(asm.finish()?))
    }

    fn records(&self) -> BpfProgram {
        let record = |insn: &bpf::Insn| sock_filter { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k };
        self.0.insns().iter().map(record).collect()
    }

    /// Installs it on the calling thread, and on those it starts later. Sets `no_new_privs`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn install(&self) -> Result<(), SeccompError> {
        seccompiler::apply_filter(&self.records()).map_err(|error| SeccompError::Install(error.to_string()))
    }

    /// Installs it on every thread of the process.
    ///
    /// # Errors
    /// When the host refuses, or a thread has a filter of its own already.
    pub fn install_on_all_threads(&self) -> Result<(), SeccompError> {
        seccompiler::apply_filter_all_threads(&self.records())
            .map_err(|error| SeccompError::Install(error.to_string()))
    }
}

/// Allows what one of the lists does.
fn judge(
    asm: &mut Assembler,
    lists: &[&[ArgCheck]],
    (allow, deny): (Label, Label),
) -> Result<(), SeccompError> {
    // What A holds: rows that tell requests apart ask for the same each time.
    let mut held = None;
    for list in lists {
        let next = asm.label();
        for check in *list {
            let what = (check.index, check.mask);
            if held != Some(what) {
                asm.load_low(Field::Arg(arg(check.index)?));
                if check.mask != u32::MAX {
                    asm.alu(bpf::insn::AND, check.mask);
                }
            }
            held = Some(what);
            asm.jeq(check.value, Target::Next, next);
        }
        asm.jump(allow);
        asm.bind(next);
        if list.len() > 1 {
            // Whichever of its checks failed.
            held = None;
        }
    }
    asm.jump(deny);
    Ok(())
}

fn arg(index: u8) -> Result<Arg, SeccompError> {
    let args = [Arg::A0, Arg::A1, Arg::A2, Arg::A3, Arg::A4, Arg::A5];
    args.get(usize::from(index)).copied().ok_or(SeccompError::Argument(index))
}

#[cfg(test)]
mod tests {
    use bpf::{Action, SeccompData};

    use super::{ArgCheck, Filter, Rule, SeccompError, check, equals};

    static TABLE: &[Rule] = seccomp_rules! {
        SYS_read => "reading";
        SYS_mmap => "nothing executable", &[&[check(2, 4, 0)]];
        SYS_ioctl => "three requests", &[
            &[equals(1, 7)],
            &[equals(1, 9)],
            &[equals(1, 11), check(2, 0xf0, 0x10)],
            &[equals(1, 12)],
        ];
        SYS_fcntl => "flags", &[&[equals(1, 3)]];
        SYS_fcntl => "and all else";
        SYS_tgkill => "one signal", &[&[equals(2, 9)]];
        SYS_exit_group => "the end";
    };

    /// What a table says, read row by row.
    fn allows(table: &[Rule], call: &SeccompData) -> bool {
        let holds = |c: &ArgCheck| call.args[usize::from(c.index)] as u32 & c.mask == c.value;
        call.arch == SeccompData::ARCH_X86_64
            && table
                .iter()
                .filter(|rule| rule.nr as u32 == call.nr)
                .any(|rule| rule.any_of.is_empty() || rule.any_of.iter().any(|list| list.iter().all(holds)))
    }

    #[test]
    fn a_filter_says_what_its_table_does() {
        let filter = Filter::compile(TABLE).expect("a small table");
        let mut allowed = 0;
        for nr in (0..500).chain([0x4000_0000, 0x4000_0010, u32::MAX]) {
            for arch in [SeccompData::ARCH_X86_64, 0x4000_0003] {
                for (one, two) in (0..16).flat_map(|one| [0, 4, 9, 0x14, 0x1f, 1 << 40].map(|two| (one, two)))
                {
                    let args = [5, one, two, 0, 0, 0];
                    let call = SeccompData { nr, arch, instruction_pointer: 0, args };
                    let said = Action::from_raw(filter.0.run(&call));
                    let wanted = if allows(TABLE, &call) { Action::Allow } else { Action::KillProcess };
                    assert_eq!(said, wanted, "{call:?}");
                    allowed += usize::from(said == Action::Allow);
                }
            }
        }
        assert!(allowed > 300);
    }

    #[test]
    fn tables_of_any_size_become_filters() {
        let row = |nr| Rule { nr, name: "some", reason: "a test", any_of: &[] };
        for len in 0..40 {
            let table: Vec<_> = (0..len).map(|i| row(i * 3)).collect();
            let filter = Filter::compile(&table).expect("a small table");
            for nr in 0..130 {
                let call = SeccompData { nr, arch: SeccompData::ARCH_X86_64, ..SeccompData::default() };
                let said = Action::from_raw(filter.0.run(&call)) == Action::Allow;
                assert_eq!(said, allows(&table, &call), "{nr} of {len}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let bad = Rule { nr: -1, name: "none", reason: "a test", any_of: &[] };
        assert!(matches!(Filter::compile(&[bad]), Err(SeccompError::Number(-1))));
        let bad = Rule { nr: 1, any_of: const { &[&[equals(6, 0)]] }, ..bad };
        assert!(matches!(Filter::compile(&[bad]), Err(SeccompError::Argument(6))));
    }
}
