//! Argument and environment strings, and their limits (`execve(2)`, "Limits on size of arguments").

use crate::LoadError;

/// Most bytes of one string with its NUL (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 128 << 10;
/// Strings and pointers always may take this much (`ARG_MAX`).
const ALWAYS: u64 = 128 << 10;
/// And never more than this: three quarters of the usual stack.
const NEVER_MORE: u64 = (8 << 20) / 4 * 3;

/// Arguments and environment of a new program.
#[derive(Clone, Debug)]
pub struct Arguments {
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) envp: Vec<Vec<u8>>,
    room: u64,
}

impl Arguments {
    /// None yet. A quarter of `stack_limit` (bytes, `RLIMIT_STACK`) may be used.
    pub fn new(stack_limit: u64) -> Self {
        let room = (stack_limit / 4).clamp(ALWAYS, NEVER_MORE);
        Self { argv: Vec::new(), envp: Vec::new(), room }
    }

    /// Adds an argument, without its NUL.
    pub fn push_arg(&mut self, arg: Vec<u8>) -> Result<(), LoadError> {
        self.take_room(&arg)?;
        self.argv.push(arg);
        Ok(())
    }

    /// Adds an environment string, without its NUL.
    pub fn push_env(&mut self, env: Vec<u8>) -> Result<(), LoadError> {
        self.take_room(&env)?;
        self.envp.push(env);
        Ok(())
    }

    /// The arguments.
    pub fn argv(&self) -> &[Vec<u8>] {
        &self.argv
    }

    /// Replaces `argv[0]` by `front`: how an interpreter gets its arguments.
    pub(crate) fn replace_first(&mut self, front: Vec<Vec<u8>>) -> Result<(), LoadError> {
        for arg in &front {
            self.take_room(arg)?;
        }
        let rest = self.argv.iter().skip(1).cloned();
        self.argv = front.into_iter().chain(rest).collect();
        Ok(())
    }

    /// Takes room for a string and the pointer to it.
    pub(crate) fn take_room(&mut self, string: &[u8]) -> Result<(), LoadError> {
        if string.len() >= MAX_STRING {
            return Err(LoadError::TooLong);
        }
        let need = string.len() as u64 + 1 + size_of::<u64>() as u64;
        self.room = self.room.checked_sub(need).ok_or(LoadError::TooLong)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, MAX_STRING};
    use crate::LoadError;

    #[test]
    fn one_string_and_all_together_are_bounded() {
        let mut args = Arguments::new(8 << 20);
        assert_eq!(args.push_arg(vec![b'x'; MAX_STRING]), Err(LoadError::TooLong));
        for _ in 0..15 {
            args.push_env(vec![b'x'; MAX_STRING - 1]).unwrap();
        }
        assert_eq!(args.push_env(vec![b'x'; MAX_STRING - 1]), Err(LoadError::TooLong));
    }

    #[test]
    fn a_small_stack_still_leaves_the_minimum() {
        let mut args = Arguments::new(4096);
        args.push_arg(vec![b'x'; 100_000]).unwrap();
        assert_eq!(args.push_arg(vec![b'x'; 100_000]), Err(LoadError::TooLong));
    }
}
