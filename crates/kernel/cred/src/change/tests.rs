//! Set-id calls and capabilities, against `capabilities(7)` and `credentials(7)`.

use super::{CredError, SECBIT_NO_SETUID_FIXUP, UNCHANGED};
use crate::{CapSet, Credentials};

fn ids(c: &Credentials) -> [u32; 4] {
    [c.uid, c.euid, c.suid, c.fsuid]
}

#[test]
fn root_that_becomes_a_user_loses_everything() {
    let user = Credentials::root().set_uid(7).expect("root may");
    assert_eq!(ids(&user), [7; 4]);
    assert_eq!((user.permitted, user.effective), (CapSet::empty(), CapSet::empty()));
    assert_eq!(user.set_uid(0), Err(CredError::NotPermitted));
    assert_eq!(user.set_uid(UNCHANGED), Err(CredError::Invalid));
    assert_eq!(user.set_groups(vec![1]), Err(CredError::NotPermitted));
}

#[test]
fn an_effective_user_comes_and_goes() {
    let root = Credentials::root();
    let away = root.set_resuid(UNCHANGED, 7, UNCHANGED).expect("root may");
    assert_eq!(ids(&away), [0, 7, 0, 7]);
    assert_eq!((away.permitted, away.effective), (CapSet::all(), CapSet::empty()));
    assert_eq!(away.set_resuid(9, UNCHANGED, UNCHANGED), Err(CredError::NotPermitted));
    let back = away.set_uid(0).expect("the real id is root's");
    assert_eq!(ids(&back), [0; 4]);
    assert_eq!(back.effective, CapSet::all());
}

#[test]
fn the_saved_id_follows_setreuid_as_posix_says() {
    let user = Credentials { suid: 9, ..Credentials::user(5, 5) };
    assert_eq!(ids(&user.set_reuid(UNCHANGED, 5).expect("its own")), [5, 5, 9, 5]);
    assert_eq!(ids(&user.set_reuid(UNCHANGED, 9).expect("saved")), [5, 9, 9, 9]);
    assert_eq!(ids(&user.set_reuid(5, UNCHANGED).expect("its own")), [5, 5, 5, 5]);
    assert_eq!(user.set_reuid(9, UNCHANGED), Err(CredError::NotPermitted));
}

#[test]
fn kept_capabilities_stay_permitted() {
    let keeps = Credentials::root().set_keep_caps(true).expect("not locked");
    let user = keeps.set_resuid(7, 7, 7).expect("root may");
    assert_eq!((user.permitted, user.effective), (CapSet::all(), CapSet::empty()));
    let fixed = Credentials { securebits: SECBIT_NO_SETUID_FIXUP, ..Credentials::root() };
    assert_eq!(fixed.set_uid(7).expect("root may").effective, CapSet::all());
}

#[test]
fn the_file_user_takes_the_file_capabilities_along() {
    let other = Credentials::root().set_fsuid(7).expect("root may");
    assert!(!other.capable(CapSet::DAC_OVERRIDE) && other.capable(CapSet::SYS_ADMIN));
    assert!(other.set_fsuid(0).expect("its own").capable(CapSet::DAC_OVERRIDE));
}

#[test]
fn sets_only_shrink() {
    let root = Credentials::root();
    let kill = CapSet::KILL;
    let less = root.set_caps(kill, kill, kill).expect("a subset");
    assert_eq!(less.set_caps(CapSet::CHOWN, kill, kill), Err(CredError::NotPermitted));
    assert_eq!(less.set_caps(kill, CapSet::all(), kill), Err(CredError::NotPermitted));
    assert_eq!(less.set_caps(kill, kill, CapSet::CHOWN), Err(CredError::NotPermitted));
    assert_eq!(less.drop_bounding(kill), Err(CredError::NotPermitted));
    assert_eq!(less.raise_ambient(CapSet::CHOWN), Err(CredError::NotPermitted));
    let ambient = less.raise_ambient(kill).expect("permitted and inheritable");
    let none = CapSet::empty();
    assert_eq!(ambient.set_caps(none, kill, none).expect("a subset").ambient, none);
}

#[test]
fn locked_secure_bits_stay() {
    let locked = Credentials::root().set_securebits(0b11).expect("privileged");
    assert_eq!(locked.set_securebits(0b10), Err(CredError::NotPermitted));
    assert_eq!(locked.set_securebits(0b01), Err(CredError::NotPermitted));
    assert!(locked.set_securebits(0b0111).is_ok());
    assert_eq!(Credentials::root().set_securebits(1 << 9), Err(CredError::NotPermitted));
}
