//! The table: a row a system call, with what it supports and who handles it.

use abi::{Errno, SysError, SysResult};

use crate::handler::Context;

/// How far a system call is implemented. Shown by `runsc help syscalls` and in the docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As Linux, as far as we know.
    Full,
    /// With this gap.
    Partial(&'static str),
    /// Always answers `errno`, for this reason.
    Refused(Errno, &'static str),
}

/// One row.
pub struct Row<K: Context> {
    /// Number.
    pub nr: u32,
    /// Support level.
    pub support: Support,
    /// Runs it.
    pub call: for<'x, 'y> fn(&'x mut K::Of<'y>, [u64; 6]) -> SysResult<u64>,
    /// Shows its arguments.
    pub describe: fn([u64; 6]) -> String,
}

impl<K: Context> Row<K> {
    /// The name, `"read"`.
    pub fn name(&self) -> &'static str {
        abi::syscall::name(u64::from(self.nr)).unwrap_or("?")
    }
}

/// A system-call table. Rows ascend by number.
pub struct Table<K: Context> {
    rows: &'static [Row<K>],
}

impl<K: Context> Table<K> {
    /// Over `rows`, which must ascend by number; a table out of order is a compile-time error when it is
    /// a `static`.
    pub const fn new(rows: &'static [Row<K>]) -> Self {
        let mut i = 1;
        while i < rows.len() {
            assert!(rows[i - 1].nr < rows[i].nr, "rows of a system-call table must ascend");
            i += 1;
        }
        Self { rows }
    }

    /// The row of `nr`.
    pub fn row(&self, nr: u64) -> Option<&Row<K>> {
        let nr = u32::try_from(nr).ok()?;
        let at = self.rows.binary_search_by_key(&nr, |row| row.nr).ok()?;
        self.rows.get(at)
    }

    /// All rows, ascending.
    pub fn rows(&self) -> impl Iterator<Item = &Row<K>> {
        self.rows.iter()
    }

    /// Runs `nr`; `ENOSYS` for a number without a row.
    pub fn call(&self, cx: &mut K::Of<'_>, nr: u64, args: [u64; 6]) -> SysResult<u64> {
        match self.row(nr) {
            Some(row) => (row.call)(cx, args),
            None => Err(SysError::Errno(Errno::ENOSYS)),
        }
    }
}

/// Declares a [`Table`]: `NAME => full, path::to::handler;`, `partial("gap"), handler;` or
/// `refused(ERRNO, "reason");`, with the names of [`abi::syscall`].
#[macro_export]
macro_rules! syscall_table {
    ($(#[$doc:meta])* $vis:vis static $table:ident: $cx:ty { $($name:ident => $kind:ident $(($($how:tt)*))? $(, $handler:path)?;)* }) => {
        $(#[$doc])*
        $vis static $table: $crate::table::Table<$cx> = $crate::table::Table::new(&[
            $($crate::syscall_table!(@row $cx, $name, $kind $(($($how)*))? $(, $handler)?)),*
        ]);
    };
    (@row $cx:ty, $name:ident, full, $handler:path) => {
        $crate::syscall_table!(@handled $cx, $name, $crate::table::Support::Full, $handler)
    };
    (@row $cx:ty, $name:ident, partial($gap:literal), $handler:path) => {
        $crate::syscall_table!(@handled $cx, $name, $crate::table::Support::Partial($gap), $handler)
    };
    (@row $cx:ty, $name:ident, refused($errno:ident, $why:literal)) => {
        $crate::table::Row {
            nr: abi::syscall::$name,
            support: $crate::table::Support::Refused(abi::Errno::$errno, $why),
            call: |_, _| Err(abi::SysError::Errno(abi::Errno::$errno)),
            describe: |args| format!("{:#x}, {:#x}, {:#x}", args[0], args[1], args[2]),
        }
    };
    (@handled $cx:ty, $name:ident, $support:expr, $handler:path) => {
        $crate::table::Row {
            nr: abi::syscall::$name,
            support: $support,
            call: |cx, args| $crate::handler::Handler::<$cx, _>::call(&$handler, cx, args),
            describe: |args| $crate::handler::Handler::<$cx, _>::describe(&$handler, args),
        }
    };
}

#[cfg(test)]
mod tests {
    use abi::{Errno, SysError, SysResult};
    use guestmem::{UserAddr, UserPtr};

    use super::Support;
    use crate::args::Fd;
    use crate::handler::Context;

    struct Cx<'a>(&'a mut Vec<String>);

    struct Test;

    impl Context for Test {
        type Of<'a> = Cx<'a>;
    }

    fn read(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> SysResult<usize> {
        cx.0.push(format!("read {fd:?} {buf:?} {count}"));
        Ok(count)
    }

    fn getpid(_: &mut Cx<'_>) -> SysResult<i32> {
        Ok(7)
    }

    fn uname(_: &mut Cx<'_>, out: UserPtr<[u8; 390]>) -> SysResult<()> {
        if out.is_null() { Err(Errno::EFAULT.into()) } else { Ok(()) }
    }

    syscall_table! {
        static TEST: Test {
            read => full, read;
            getpid => full, getpid;
            uname => partial("a test"), uname;
            uselib => refused(ENOSYS, "obsolete");
        }
    }

    #[test]
    fn rows_convert_call_and_describe_by_type() {
        let mut log = Vec::new();
        let mut cx = Cx(&mut log);
        assert_eq!(TEST.call(&mut cx, 0, [3, 0x1000, 12, 0, 0, 0]), Ok(12));
        assert_eq!(*cx.0, ["read Fd(3) 0x1000 12"]);
        assert_eq!(TEST.call(&mut cx, 39, [0; 6]), Ok(7));
        assert_eq!(TEST.call(&mut cx, 63, [0; 6]), Err(SysError::Errno(Errno::EFAULT)));
        let row = TEST.row(0).expect("read has a row");
        assert_eq!((row.describe)([u64::from(u32::MAX) - 99, 0, 5, 0, 0, 0]), "AT_FDCWD, NULL, 5");
    }

    #[test]
    fn what_has_no_row_or_is_refused_says_so() {
        let mut log = Vec::new();
        let mut cx = Cx(&mut log);
        assert_eq!(TEST.call(&mut cx, 1, [0; 6]), Err(SysError::Errno(Errno::ENOSYS)));
        assert_eq!(TEST.call(&mut cx, u64::MAX, [0; 6]), Err(SysError::Errno(Errno::ENOSYS)));
        let row = TEST.row(134).expect("uselib has a row");
        assert_eq!(row.support, Support::Refused(Errno::ENOSYS, "obsolete"));
        assert_eq!(row.name(), "uselib");
    }
}
