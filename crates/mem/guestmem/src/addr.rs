//! Addresses and typed pointers as a guest passes them.

use core::fmt;
use core::marker::PhantomData;

/// An address in a guest's address space. Only checked arithmetic: a guest picks the numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// Address zero.
    pub const NULL: Self = Self(0);

    /// Is it zero?
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// `self + bytes`, or `None` past the end of 64 bits.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// `self - bytes`, or `None` below zero.
    pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
        match self.0.checked_sub(bytes) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// On a page boundary?
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(abi::PAGE_SIZE)
    }

    /// Rounded down to a page.
    pub const fn page_down(self) -> Self {
        Self(abi::page_down(self.0))
    }

    /// Rounded up to a page, or `None` past the end of 64 bits.
    pub const fn page_up(self) -> Option<Self> {
        match abi::page_up(self.0) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A guest's claim that a `T` lies at an address.
#[derive(PartialEq, Eq)]
pub struct UserPtr<T> {
    addr: UserAddr,
    what: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> UserPtr<T> {
    /// The claim at `addr`.
    pub const fn new(addr: UserAddr) -> Self {
        Self { addr, what: PhantomData }
    }

    /// Where.
    pub const fn addr(self) -> UserAddr {
        self.addr
    }

    /// Null, by which many calls mean "absent"?
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }

    /// `None` for null.
    pub fn non_null(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }

    /// The `index`-th element of an array of `T` that begins here.
    pub fn element(self, index: u64) -> Option<Self> {
        let offset = index.checked_mul(size_of::<T>() as u64)?;
        self.addr.checked_add(offset).map(Self::new)
    }

    /// The same address, claimed to hold something else.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }
}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// A guest's claim of `len` bytes at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSlice {
    /// First byte.
    pub addr: UserAddr,
    /// Bytes.
    pub len: usize,
}

/// A guest's claim of a NUL-terminated string at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserCStr(pub UserAddr);
