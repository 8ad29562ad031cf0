//! What of a virtual processor is reached by pointer, and what the host wants promises for.
//!
//! # Soundness
//! A [`Stop`] points into the page that the host shares with us; it is kept beside the processor whose page it is,
//! and is dropped or disarmed with it (`vcpu`).

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_xsave};
use kvm_ioctls::VcpuFd;

/// The flag by which `KVM_RUN` does not begin.
#[derive(Clone, Copy)]
pub(crate) struct Stop(NonNull<u8>);

// SAFETY: used as an atomic only.
unsafe impl Send for Stop {}
// SAFETY: as above.
unsafe impl Sync for Stop {}

impl Stop {
    /// That of a processor. It must not be used once that is gone.
    pub(crate) fn of(vcpu: &mut VcpuFd) -> Self {
        Self(NonNull::from(&mut vcpu.get_kvm_run().immediate_exit))
    }

    /// Sets or clears it.
    pub(crate) fn set(self, stop: Stopping) {
        // SAFETY: the page is there as long as the processor, which the holder of this knows to be there.
        let flag = unsafe { AtomicU8::from_ptr(self.0.as_ptr()) };
        flag.store(u8::from(stop == Stopping::Now), Ordering::SeqCst);
    }
}

/// Whether a processor is to come back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// Yes.
    Now,
    /// No.
    Not,
}

/// Our time-stamp counter.
pub(crate) fn clock() -> u64 {
    // SAFETY: every x86-64 processor has one.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// `KVM_SET_DEVICE_ATTR`, which the crate knows for other architectures only.
const SET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee1;

/// Sets what the machine adds to our time-stamp counter.
pub(crate) fn set_clock_offset(vcpu: &VcpuFd, offset: u64) -> std::io::Result<()> {
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset).addr() as u64,
        flags: 0,
    };
    // SAFETY: the host reads the structure and the word that it points to, which are both there.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_DEVICE_ATTR, &raw const attr) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Loads floating-point state.
pub(crate) fn set_xsave(vcpu: &VcpuFd, state: &kvm_xsave) -> std::io::Result<()> {
    // SAFETY: without dynamically enabled features, which nobody asks for, the host reads 4096 bytes.
    unsafe { vcpu.set_xsave(state) }.map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
}
