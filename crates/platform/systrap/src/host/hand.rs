//! A host thread in hand: what it can be told to do, wherever it rests.

use std::cell::Cell;
use std::time::Instant;

use parking_lot::MutexGuard;
use platform::PlatformError;

use super::{At, Host, LOOK_AFTER, Posted};
use crate::layout::{
    ACT, ACT_CLONE, ACT_WAIT, ACTION, ACTIONS, INTERRUPT, OFF_ACTIONS, OFF_COUNT, OFF_STATE, TAKEN,
};
use crate::raw::stub::{self, Posting};
use crate::raw::sys;
use crate::space::Space;

/// Where a thread in hand acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rests {
    /// At its doorbell.
    Bell,
    /// Where it looks for the result of its call.
    Looking,
    /// Where it waits for that.
    Waiting,
}

/// A host thread in hand: it stays where it is but for the actions it is told.
pub(crate) struct Hand<'a> {
    host: &'a Host,
    rests: Cell<Rests>,
    _acting: MutexGuard<'a, ()>,
}

impl Hand<'_> {
    /// See [`Host::run`].
    pub(crate) fn run(&self, space: &Space, actions: &[[u64; 7]]) -> Result<Vec<i64>, PlatformError> {
        let host = self.host;
        let mut results = Vec::with_capacity(actions.len());
        for chunk in actions.chunks(ACTIONS) {
            self.run_chunk(space, chunk)?;
            for i in 0..chunk.len() {
                let result = space.mailbox.get(host.slot, OFF_ACTIONS + i * ACTION + 56) as i64;
                results.push(result);
                if (-4095..0).contains(&result) {
                    return Ok(results);
                }
            }
        }
        Ok(results)
    }

    fn run_chunk(&self, space: &Space, chunk: &[[u64; 7]]) -> Result<(), PlatformError> {
        let host = self.host;
        // One that acts by itself does only what the host can: see the stub.
        let plain = chunk.iter().all(|action| action[0] < ACT_CLONE);
        match self.rests.get() {
            Rests::Looking if plain && host.act_posted(space, chunk)? => return Ok(()),
            Rests::Waiting if plain => {
                if !host.act_waiting(space, chunk)? {
                    self.settle()?;
                }
                return Ok(());
            }
            _ => self.settle()?,
        }
        host.post(space, chunk);
        host.reply(chunk.len() as i64, true)?;
        host.wait()
    }

    /// Brings it to its doorbell if it is not there.
    fn settle(&self) -> Result<(), PlatformError> {
        if self.rests.replace(Rests::Bell) == Rests::Bell { Ok(()) } else { self.host.bring() }
    }

    /// Gives it a descriptor.
    pub(crate) fn give_fd(&self, space: &Space, fd: i32) -> Result<i32, PlatformError> {
        if self.rests.get() == Rests::Looking {
            match self.host.call_to_wait(space)? {
                true => self.rests.set(Rests::Waiting),
                false => self.settle()?,
            }
        }
        let notif = self.host.held.lock().notif.ok_or(PlatformError::Gone)?;
        sys::add_fd(self.host.listener.fd(), notif.id, fd, None, false)
            .map_err(|source| PlatformError::Host { doing: "giving a guest a descriptor", source })
    }
}

impl Host {
    /// Takes it in hand at its doorbell, fetching it from whatever it does; whoever serves its trap cannot
    /// let it go meanwhile.
    pub(crate) fn hold(&self) -> Result<Hand<'_>, PlatformError> {
        let acting = self.lock_acting();
        self.bring()?;
        Ok(Hand { host: self, rests: Cell::new(Rests::Bell), _acting: acting })
    }

    /// The same, but a thread that looks or waits for the result of its call may stay there while it acts.
    pub(crate) fn hold_where_it_is(&self) -> Result<Hand<'_>, PlatformError> {
        let acting = self.lock_acting();
        let rests = {
            let held = self.held.lock();
            match (held.notif, held.at, held.posted) {
                (None, _, Posted::Served(_)) => Rests::Looking,
                (Some(_), At::Wait, Posted::Served(_)) => Rests::Waiting,
                _ => Rests::Bell,
            }
        };
        if rests == Rests::Bell {
            self.bring()?;
        }
        Ok(Hand { host: self, rests: Cell::new(rests), _acting: acting })
    }

    /// The same when it is at its doorbell and in nobody's hand.
    pub(crate) fn try_hold(&self) -> Option<Hand<'_>> {
        let acting = self.acting.try_lock()?;
        let held = self.held.lock();
        let at_bell = held.at == At::Bell && !matches!(held.posted, Posted::Served(_));
        let rests = Cell::new(Rests::Bell);
        (held.notif.is_some() && at_bell).then_some(Hand { host: self, rests, _acting: acting })
    }

    /// Makes it run actions; the results of those carried out (a failure is the last).
    pub(crate) fn run(&self, space: &Space, actions: &[[u64; 7]]) -> Result<Vec<i64>, PlatformError> {
        self.hold()?.run(space, actions)
    }

    /// Makes it run actions where it waits for the result of its call; whether it still waits there afterwards. It is
    /// in hand.
    fn act_waiting(&self, space: &Space, actions: &[[u64; 7]]) -> Result<bool, PlatformError> {
        let mailbox = &space.mailbox;
        self.post(space, actions);
        mailbox.set(self.slot, OFF_COUNT, actions.len() as u64);
        mailbox.store(self.slot, OFF_STATE, ACT_WAIT);
        let mut interrupted = false;
        loop {
            self.reply(0, true)?;
            self.wait()?;
            let (at, bell) = {
                let held = self.held.lock();
                (held.at, held.notif.ok_or(PlatformError::Gone)?)
            };
            let done = mailbox.load(self.slot, OFF_STATE) != ACT_WAIT;
            match (at, self.frame(space)) {
                (At::Wait, _) if done => break,
                // A signal came first, or in between: the thread goes on where it was.
                (At::Bell, Some(frame)) if bell.args[1] == INTERRUPT as u64 => {
                    interrupted = true;
                    if done {
                        break;
                    }
                    frame.set_bases(bell.args[4], bell.args[5]);
                    frame.seal();
                }
                _ => {
                    self.process.condemn();
                    return Err(PlatformError::Gone);
                }
            }
        }
        if interrupted {
            self.poke();
        }
        Ok(self.held.lock().at == At::Wait)
    }

    /// Has it wait for the result of its call, for which it looks; whether it does. It is in hand.
    fn call_to_wait(&self, space: &Space) -> Result<bool, PlatformError> {
        self.slow_down(space);
        self.wait()?;
        Ok(self.held.lock().at == At::Wait)
    }

    /// Makes it run actions where it looks for the result of its call; whether it did. It is in hand.
    fn act_posted(&self, space: &Space, actions: &[[u64; 7]]) -> Result<bool, PlatformError> {
        let mailbox = &space.mailbox;
        self.post(space, actions);
        mailbox.set(self.slot, OFF_COUNT, actions.len() as u64);
        if !mailbox.exchange(self.slot, OFF_STATE, TAKEN, ACT) {
            return Ok(false);
        }
        let (mut looks, mut interrupted, began) = (0u32, false, Instant::now());
        while mailbox.load(self.slot, OFF_STATE) == ACT {
            looks = looks.wrapping_add(1);
            if looks < 200 {
                std::hint::spin_loop();
                continue;
            }
            std::thread::yield_now();
            if began.elapsed() > LOOK_AFTER && !self.runs() {
                return Err(PlatformError::Gone);
            }
            let mut held = self.held.lock();
            if held.dead {
                return Err(PlatformError::Gone);
            }
            let Some(notif) = held.notif else { continue };
            // It waits, or was interrupted: before it saw the list, or while it runs it.
            let frame = self.frame(space).filter(|_| held.at == At::Bell);
            match frame.filter(|frame| stub::posting(frame.ip()) == Some(Posting::Acting)) {
                Some(frame) => {
                    frame.set_bases(notif.args[4], notif.args[5]);
                    frame.seal();
                    held.notif = None;
                    interrupted = true;
                    drop(held);
                    sys::send(self.listener.fd(), notif.id, 0).map_err(|_| PlatformError::Gone)?;
                }
                None if mailbox.exchange(self.slot, OFF_STATE, ACT, TAKEN) => return Ok(false),
                None => {}
            }
        }
        if interrupted {
            self.poke();
        }
        Ok(true)
    }
}
