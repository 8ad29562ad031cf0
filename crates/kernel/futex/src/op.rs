//! Changing a word and waking by what it held (`FUTEX_WAKE_OP`).

use abi::Errno;
use guestmem::{MemExt, UserMem, UserPtr};

use crate::{FutexError, Futexes, Key};

/// The word moves under us only as often as the guest's threads move it; past this, `EAGAIN`.
const TRIES: u32 = 1024;

/// The change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set,
    Add,
    Or,
    AndNot,
    Xor,
}

/// How the old value is compared, as signed numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// `FUTEX_OP(op, oparg, cmp, cmparg)`, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeOp {
    change: Change,
    operand: u32,
    compare: Compare,
    against: i32,
}

/// Twelve bits as a signed number.
fn signed(bits: u32) -> i32 {
    ((bits << 20) as i32) >> 20
}

impl WakeOp {
    /// From the last argument of the call; `ENOSYS` for an operation that is none.
    pub fn from_raw(raw: u32) -> Result<Self, Errno> {
        let change = match (raw >> 28) & 7 {
            0 => Change::Set,
            1 => Change::Add,
            2 => Change::Or,
            3 => Change::AndNot,
            4 => Change::Xor,
            _ => return Err(Errno::ENOSYS),
        };
        let compare = match (raw >> 24) & 15 {
            0 => Compare::Equal,
            1 => Compare::NotEqual,
            2 => Compare::Less,
            3 => Compare::LessOrEqual,
            4 => Compare::Greater,
            5 => Compare::GreaterOrEqual,
            _ => return Err(Errno::ENOSYS),
        };
        let operand = signed((raw >> 12) & 0xfff) as u32;
        let shifted = raw >> 31 != 0;
        let operand = if shifted { 1u32.wrapping_shl(operand) } else { operand };
        Ok(Self { change, operand, compare, against: signed(raw & 0xfff) })
    }

    /// Changes the word; does the old value compare?
    pub fn apply(&self, mem: &dyn UserMem, key: Key) -> Result<bool, FutexError> {
        for _ in 0..TRIES {
            let old = mem.load(UserPtr::<u32>::new(key.addr))?;
            let new = match self.change {
                Change::Set => self.operand,
                Change::Add => old.wrapping_add(self.operand),
                Change::Or => old | self.operand,
                Change::AndNot => old & !self.operand,
                Change::Xor => old ^ self.operand,
            };
            if mem.compare_exchange_u32(key.addr, old, new)? == old {
                return Ok(self.holds(old as i32));
            }
        }
        Err(FutexError::Changed)
    }

    fn holds(&self, old: i32) -> bool {
        match self.compare {
            Compare::Equal => old == self.against,
            Compare::NotEqual => old != self.against,
            Compare::Less => old < self.against,
            Compare::LessOrEqual => old <= self.against,
            Compare::Greater => old > self.against,
            Compare::GreaterOrEqual => old >= self.against,
        }
    }
}

impl Futexes {
    /// `FUTEX_WAKE_OP`: changes the second word as `code` says, wakes `first` waiters of the first, and
    /// `second` of the second when its old value compares. Returns how many.
    pub fn wake_op(
        &self,
        mem: &dyn UserMem,
        (one, two): (Key, Key),
        (first, second): (u32, u32),
        code: u32,
    ) -> Result<u32, FutexError> {
        let op = WakeOp::from_raw(code).map_err(FutexError::Errno)?;
        let also = op.apply(mem, two)?;
        let woken = self.wake(one, first, u32::MAX);
        Ok(if also { woken.saturating_add(self.wake(two, second, u32::MAX)) } else { woken })
    }
}
