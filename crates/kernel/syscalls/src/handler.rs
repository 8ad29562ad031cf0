//! Handlers: the signature of the function is the only declaration of a system call.
//!
//! [`Handler`] is implemented for functions of a context and up to six [`FromArg`] parameters. Arity,
//! conversion and the strace line all come from the parameter types; a row of the table whose function
//! does not fit does not compile.

use abi::SysResult;

use crate::args::{FromArg, IntoReturn};

/// A system-call handler. `C` is the context it runs in, `Args` the tuple of its parameter types.
pub trait Handler<C: ?Sized, Args> {
    /// Converts the raw arguments, in order, and calls it.
    fn call(&self, cx: &mut C, args: [u64; 6]) -> SysResult<u64>;

    /// The arguments as an strace line shows them, without touching guest memory.
    fn describe(&self, args: [u64; 6]) -> String;
}

macro_rules! impl_handler {
    ($($param:ident $index:tt),*) => {
        impl<C: ?Sized, F, R, $($param),*> Handler<C, ($($param,)*)> for F
        where
            F: Fn(&mut C, $($param),*) -> SysResult<R>,
            R: IntoReturn,
            $($param: FromArg,)*
        {
            #[allow(unused_variables)]
            fn call(&self, cx: &mut C, args: [u64; 6]) -> SysResult<u64> {
                self(cx, $($param::from_arg(args[$index])?),*).map(R::into_return)
            }

            #[allow(unused_variables, unused_mut)]
            fn describe(&self, args: [u64; 6]) -> String {
                let parts: Vec<String> = vec![$($param::describe(args[$index])),*];
                parts.join(", ")
            }
        }
    };
}

impl_handler!();
impl_handler!(A 0);
impl_handler!(A 0, B 1);
impl_handler!(A 0, B 1, D 2);
impl_handler!(A 0, B 1, D 2, E 3);
impl_handler!(A 0, B 1, D 2, E 3, G 4);
impl_handler!(A 0, B 1, D 2, E 3, G 4, H 5);
