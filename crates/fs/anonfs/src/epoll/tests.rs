//! Tests of epoll on eventfds.

use sync::wait::{Parker, Wake};

use super::*;
use crate::eventfd::{EventFd, EventFdMode};

fn eventfd(initial: u32) -> Arc<dyn File> {
    Arc::new(EventFd::new(initial, EventFdMode::Semaphore))
}

fn signal(file: &Arc<dyn File>) {
    if let Some(fd) = file.as_any().downcast_ref::<EventFd>() {
        fd.signal(1);
    }
}

fn want(events: PollEvents, flags: EpollFlags, data: u64) -> EpollEvent {
    EpollEvent { events: events.bits() | flags.bits(), data }
}

fn readable(data: u64) -> EpollEvent {
    EpollEvent { events: PollEvents::IN.bits(), data }
}

#[test]
fn levels_repeat_and_edges_do_not() {
    let (epoll, a, b) = (Epoll::new(), eventfd(1), eventfd(1));
    assert_eq!(epoll.add(3, &a, &want(PollEvents::IN, EpollFlags::empty(), 30)), Ok(()));
    assert_eq!(epoll.add(4, &b, &want(PollEvents::IN, EpollFlags::ET, 40)), Ok(()));
    assert_eq!(epoll.collect(8), [readable(30), readable(40)]);
    assert_eq!(epoll.collect(8), [readable(30)]);
    signal(&b);
    assert_eq!(epoll.collect(8), [readable(30), readable(40)]);
}

#[test]
fn one_shot_waits_for_modify_and_delete_forgets() {
    let (epoll, a) = (Epoll::new(), eventfd(1));
    let once = want(PollEvents::IN, EpollFlags::ONESHOT, 1);
    assert_eq!(epoll.add(3, &a, &once), Ok(()));
    assert_eq!(epoll.add(3, &a, &once), Err(Errno::EEXIST));
    assert_eq!(epoll.collect(8).len(), 1);
    signal(&a);
    assert_eq!(epoll.collect(8).len(), 0);
    assert_eq!(epoll.modify(3, &a, &once), Ok(()));
    assert_eq!(epoll.collect(8).len(), 1);
    assert_eq!(epoll.remove(3, &a), Ok(()));
    assert_eq!(epoll.remove(3, &a), Err(Errno::ENOENT));
    assert_eq!(epoll.modify(3, &a, &once), Err(Errno::ENOENT));
}

#[test]
fn a_wake_up_reaches_through_nested_sets() {
    let (outer, inner, fd) = (Epoll::new(), Arc::new(Epoll::new()), eventfd(0));
    assert_eq!(inner.add(3, &fd, &want(PollEvents::IN, EpollFlags::empty(), 1)), Ok(()));
    let inner_file: Arc<dyn File> = inner;
    assert_eq!(outer.add(4, &inner_file, &want(PollEvents::IN, EpollFlags::empty(), 2)), Ok(()));
    let parker = Parker::new();
    let queue = outer.wait_queue().unwrap_or_else(|| panic!("an epoll has a queue"));
    let _waiter = queue.register(parker.clone(), PollEvents::IN);
    assert_eq!(outer.poll(), PollEvents::empty());
    signal(&fd);
    assert_eq!(parker.park(Some(std::time::Instant::now())), Wake::Notified);
    assert_eq!(outer.collect(8), [readable(2)]);
}

#[test]
fn loops_and_deep_nesting_are_refused() {
    let sets: Vec<Arc<Epoll>> = (0..6).map(|_| Arc::new(Epoll::new())).collect();
    let file = |n: usize| -> Arc<dyn File> { Arc::<Epoll>::clone(&sets[n]) };
    let event = want(PollEvents::IN, EpollFlags::empty(), 0);
    assert_eq!(sets[0].add(9, &file(0), &event), Err(Errno::EINVAL));
    for n in 0..4 {
        assert_eq!(sets[n].add(9, &file(n + 1), &event), Ok(()));
    }
    assert_eq!(sets[4].add(9, &file(5), &event), Err(Errno::ELOOP));
    assert_eq!(sets[4].add(9, &file(0), &event), Err(Errno::ELOOP));
    assert_eq!(sets[0].remove(9, &file(1)), Ok(()));
    assert_eq!(sets[4].add(9, &file(5), &event), Ok(()));
}

#[test]
fn a_closed_file_leaves_the_set() {
    let (epoll, a) = (Epoll::new(), eventfd(1));
    assert_eq!(epoll.add(3, &a, &want(PollEvents::IN, EpollFlags::empty(), 1)), Ok(()));
    drop(a);
    assert_eq!(epoll.collect(8).len(), 0);
    assert_eq!(epoll.watched().len(), 0);
}

#[test]
fn exclusive_has_rules() {
    let (epoll, a) = (Epoll::new(), eventfd(0));
    let bad = want(PollEvents::IN | PollEvents::PRI, EpollFlags::EXCLUSIVE, 1);
    assert_eq!(epoll.add(3, &a, &bad), Err(Errno::EINVAL));
    assert_eq!(epoll.add(3, &a, &want(PollEvents::IN, EpollFlags::EXCLUSIVE, 1)), Ok(()));
    assert_eq!(epoll.modify(3, &a, &want(PollEvents::IN, EpollFlags::empty(), 1)), Err(Errno::EINVAL));
    signal(&a);
    assert_eq!(epoll.collect(8), [readable(1)]);
}
