//! Handlers: the signature of the function is the only declaration of a system call.
//!
//! [`Handler`] is implemented for functions of a context and up to six [`FromArg`] parameters. Arity,
//! conversion and the strace line all come from the parameter types; a row of the table whose function
//! does not fit does not compile.

use abi::SysResult;

use crate::args::{FromArg, IntoReturn};

/// What handlers of one table run in. A type of its own because a context borrows (the calling task, the
/// trapped thread) while a table is `static`.
pub trait Context: 'static {
    /// The context of a call that lasts `'a`.
    type Of<'a>;
}

/// A system-call handler of the tables of `K`; `Args` is the tuple of its parameter types.
pub trait Handler<K: Context, Args> {
    /// Converts the raw arguments, in order, and calls it.
    fn call(&self, cx: &mut K::Of<'_>, args: [u64; 6]) -> SysResult<u64>;

    /// The arguments as an strace line shows them, without touching guest memory.
    fn describe(&self, args: [u64; 6]) -> String;
}

macro_rules! impl_handler {
    ($($param:ident $index:tt),*) => {
        impl<K: Context, F, R, $($param),*> Handler<K, ($($param,)*)> for F
        where
            F: for<'x, 'y> Fn(&'x mut K::Of<'y>, $($param),*) -> SysResult<R>,
            R: IntoReturn,
            $($param: FromArg,)*
        {
            #[allow(unused_variables)]
            fn call(&self, cx: &mut K::Of<'_>, args: [u64; 6]) -> SysResult<u64> {
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
