//! Mutexes and read-write locks that know their place in the [order](crate::order).
//!
//! In debug builds each thread keeps the stack of classes it holds; taking one out of order panics
//! with both names. In release builds the wrapper costs nothing.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::order::Class;

#[cfg(debug_assertions)]
mod held {
    //! The classes this thread holds, in the order taken.
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<(u16, &'static str)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take(rank: u16, name: &'static str, nested: bool) {
        HELD.with_borrow_mut(|held| {
            if let Some((top, top_name)) = held.iter().max_by_key(|(rank, _)| *rank) {
                let fine = rank > *top || (rank == *top && nested);
                assert!(fine, "lock order: {name} taken while {top_name} is held");
            }
            held.push((rank, name));
        });
    }

    pub(super) fn release(rank: u16) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|(r, _)| *r == rank) {
                held.remove(at);
            }
        });
    }

    pub(super) fn any() -> Option<&'static str> {
        HELD.with_borrow(|held| held.last().map(|(_, name)| *name))
    }
}

/// Panics in debug builds when this thread holds any lock. Called where none may be held: before a
/// sleep, a guest entry, a Gofer call.
pub fn assert_none_held(what: &str) {
    #[cfg(debug_assertions)]
    if let Some(name) = held::any() {
        panic!("{what} while {name} is held");
    }
    #[cfg(not(debug_assertions))]
    let _ = what;
}

/// One entry of the held stack; leaves it when dropped.
struct Held<C: Class>(PhantomData<C>);

impl<C: Class> Held<C> {
    fn take() -> Self {
        #[cfg(debug_assertions)]
        held::take(C::RANK, C::NAME, C::NESTED);
        Self(PhantomData)
    }
}

impl<C: Class> Drop for Held<C> {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::release(C::RANK);
    }
}

/// A mutual-exclusion lock of class `C`. Does not poison.
pub struct Mutex<C: Class, T: ?Sized> {
    class: PhantomData<fn() -> C>,
    inner: parking_lot::Mutex<T>,
}

impl<C: Class, T> Mutex<C, T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Self { class: PhantomData, inner: parking_lot::Mutex::new(value) }
    }

    /// The value, when nobody else can hold the lock.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<C: Class, T: ?Sized> Mutex<C, T> {
    /// Takes the lock, sleeping while another thread has it.
    pub fn lock(&self) -> MutexGuard<'_, C, T> {
        let held = Held::take();
        if C::OVER_GUEST {
            if let Some(inner) = self.inner.try_lock() {
                return MutexGuard { inner, _held: held };
            }
            crate::block::will_wait_for_lock();
        }
        MutexGuard { inner: self.inner.lock(), _held: held }
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, C, T>> {
        let held = Held::take();
        let inner = self.inner.try_lock()?;
        Some(MutexGuard { inner, _held: held })
    }

    /// The value, without locking: `&mut self` proves nobody holds it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<C: Class, T: Default> Default for Mutex<C, T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<C: Class, T: fmt::Debug + ?Sized> fmt::Debug for Mutex<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Holds a [`Mutex`].
pub struct MutexGuard<'a, C: Class, T: ?Sized> {
    inner: parking_lot::MutexGuard<'a, T>,
    _held: Held<C>,
}

impl<C: Class, T: ?Sized> Deref for MutexGuard<'_, C, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<C: Class, T: ?Sized> DerefMut for MutexGuard<'_, C, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A read-write lock of class `C`. Does not poison.
pub struct RwLock<C: Class, T: ?Sized> {
    class: PhantomData<fn() -> C>,
    inner: parking_lot::RwLock<T>,
}

impl<C: Class, T> RwLock<C, T> {
    /// An unlocked lock.
    pub const fn new(value: T) -> Self {
        Self { class: PhantomData, inner: parking_lot::RwLock::new(value) }
    }
}

impl<C: Class, T: ?Sized> RwLock<C, T> {
    /// Takes it for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, C, T> {
        let held = Held::take();
        RwLockReadGuard { inner: self.inner.read(), _held: held }
    }

    /// Takes it for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, C, T> {
        let held = Held::take();
        RwLockWriteGuard { inner: self.inner.write(), _held: held }
    }
}

impl<C: Class, T: Default> Default for RwLock<C, T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<C: Class, T: fmt::Debug + ?Sized> fmt::Debug for RwLock<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Holds a [`RwLock`] for reading.
pub struct RwLockReadGuard<'a, C: Class, T: ?Sized> {
    inner: parking_lot::RwLockReadGuard<'a, T>,
    _held: Held<C>,
}

impl<C: Class, T: ?Sized> Deref for RwLockReadGuard<'_, C, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

/// Holds a [`RwLock`] for writing.
pub struct RwLockWriteGuard<'a, C: Class, T: ?Sized> {
    inner: parking_lot::RwLockWriteGuard<'a, T>,
    _held: Held<C>,
}

impl<C: Class, T: ?Sized> Deref for RwLockWriteGuard<'_, C, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<C: Class, T: ?Sized> DerefMut for RwLockWriteGuard<'_, C, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::Mutex;
    use crate::order::{Leaf, Tasks, Timers, Vmas};

    #[test]
    fn locks_in_order_are_granted() {
        let (outer, inner) = (Mutex::<Tasks, _>::new(1), Mutex::<Timers, _>::new(2));
        let a = outer.lock();
        let b = inner.lock();
        assert_eq!(*a + *b, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order: Tasks taken while Timers is held")]
    fn locks_out_of_order_panic_with_both_names() {
        let (outer, inner) = (Mutex::<Tasks, _>::new(1), Mutex::<Timers, _>::new(2));
        let _b = inner.lock();
        let _a = outer.lock();
    }

    #[test]
    fn who_waits_for_a_lock_held_over_a_guest_hands_over_first() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        let (lock, handed) = (Arc::new(Mutex::<Vmas, _>::new(0)), Arc::new(AtomicBool::new(false)));
        let guard = lock.lock();
        let (theirs, flag) = (Arc::clone(&lock), Arc::clone(&handed));
        let waiter = std::thread::spawn(move || {
            let flag = Arc::clone(&flag);
            crate::block::on_block(Box::new(move || flag.store(true, Ordering::SeqCst)));
            *theirs.lock() += 1;
        });
        while !handed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(guard);
        waiter.join().expect("no panic");
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn nested_classes_may_be_held_twice() {
        let (one, two) = (Mutex::<Leaf, _>::new(1), Mutex::<Leaf, _>::new(2));
        let (_a, _b) = (one.lock(), two.lock());
    }
}
