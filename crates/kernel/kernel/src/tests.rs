//! Processes by hand: every trap of these guests is made here.

use std::sync::Arc;
use std::time::Instant;

use abi::poll::PollEvents;
use abi::process::{CloneFlags, WaitOptions, WaitStatus};
use abi::signal::{SigAction, SigInfo, SigSet, Signal};
use abi::{Errno, Restart, SysResult};
use platform::{GuestThread, Resume, SyscallTrap, Trap};
use sync::wait::{Parker, Wake};

use crate::fake::{Calls, Thread, boot, memory};
use crate::{
    CloneRequest, Counted, First, IntervalTimer, NewProgram, Task, TimerNotify, TimerSetting, WaitTarget,
};

const FORK: u64 = 57;
const EXIT: u64 = 60;
const WAIT: u64 = 61;
const THREAD: u64 = 56;
const EXIT_GROUP: u64 = 231;
const SIGRETURN: u64 = 15;
const RESTART: u64 = 1000;
const EXEC: u64 = 59;
/// A fork that fails once the child is known.
const NO_FORK: u64 = 1001;

fn calls(task: &Arc<Task>, thread: &mut dyn GuestThread, call: SyscallTrap) -> SysResult<u64> {
    match call.nr {
        FORK => task.clone_task(thread, &CloneRequest::fork()).map(|tid| tid as u64),
        THREAD => {
            let flags = CloneFlags::VM | CloneFlags::SIGHAND | CloneFlags::THREAD | CloneFlags::FILES;
            let request = CloneRequest { flags, stack: 0x6000_0000, ..CloneRequest::default() };
            task.clone_task(thread, &request).map(|tid| tid as u64)
        }
        EXIT => {
            task.exit_thread(call.args[0] as i32);
            Ok(0)
        }
        EXIT_GROUP => {
            task.exit_group(call.args[0] as i32);
            Ok(0)
        }
        WAIT => {
            let options = WaitOptions::EXITED | WaitOptions::from_bits_retain(call.args[0] as u32);
            let waited = task.wait(WaitTarget::Any, options)?;
            Ok(waited.map_or(0, |w| (w.pid as u64) << 32 | w.status.word() as u64))
        }
        SIGRETURN => task.sigreturn(thread),
        RESTART => Err(Restart::Sys.into()),
        NO_FORK => {
            let request = CloneRequest::fork();
            task.clone_task_with(thread, &request, |_| Err(Errno::EMFILE)).map(|tid| tid as u64)
        }
        EXEC => {
            let mm = memory(task.kernel().platform().as_ref());
            let registers = platform::Registers::entry(0x50_0000, 0x7100_0000);
            task.exec(thread, NewProgram { mm, registers, name: b"new".to_vec(), exe: None })
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn handle(task: &Task, signal: Signal, flags: u64) {
    let action =
        SigAction { handler: 0x1234, flags: flags | 0x0400_0000, restorer: 0x99, mask: SigSet::EMPTY };
    task.sigaction(signal, Some(action)).expect("a signal that can be caught");
}

fn forked(parent: &mut Thread) -> (i32, Thread) {
    let Resume::Return(pid) = parent.call(FORK, [0; 6]) else { panic!("fork returns") };
    (pid as i32, parent.children.pop().expect("a child"))
}

#[test]
fn a_parent_waits_for_its_child() {
    let (kernel, mut init) = boot(Calls(calls));
    assert_eq!(init.call(WAIT, [0; 6]), Resume::Return(Errno::ECHILD.to_register()));
    let (pid, mut child) = forked(&mut init);
    assert_eq!((pid, child.registers.rax), (2, 0));
    assert_eq!(init.call(WAIT, [1, 0, 0, 0, 0, 0]), Resume::Return(0));
    assert_eq!(child.call(EXIT_GROUP, [7, 0, 0, 0, 0, 0]), Resume::ExitProcess);
    assert_eq!(init.call(WAIT, [0; 6]), Resume::Return(2 << 32 | 0x700));
    assert_eq!(kernel.processes(), [1]);
    assert_eq!(kernel.live_tasks(), 1);
}

/// It was one of whoever waits for any, and was the last, maybe.
#[test]
fn who_waits_for_children_hears_of_one_that_never_ran() {
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    let parker = Parker::new();
    let _waiter = task.group().child_events.register(parker.clone(), PollEvents::IN);
    assert_eq!(init.call(NO_FORK, [0; 6]), Resume::Return(Errno::EMFILE.to_register()));
    assert_eq!(parker.park(Some(Instant::now())), Wake::Notified);
    assert_eq!(init.call(WAIT, [0; 6]), Resume::Return(Errno::ECHILD.to_register()));
}

#[test]
fn a_handler_runs_on_a_frame_and_sigreturn_undoes_it() {
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    handle(&task, Signal::SIGUSR1, 0);
    kernel.kill(&task, 1, Some(Signal::SIGUSR1)).expect("may");
    let before = init.registers;
    assert_eq!(init.call(9999, [0; 6]), Resume::Continue);
    assert_eq!(init.registers.rip, 0x1234);
    assert_eq!(init.registers.rdi, 10);
    assert!(task.mask().contains(Signal::SIGUSR1));
    init.registers.rsp += 8;
    assert_eq!(init.call(SIGRETURN, [0; 6]), Resume::Continue);
    assert_eq!(init.registers.rsp, before.rsp);
    assert_eq!(init.registers.rip, before.rip + 2);
    assert_eq!(init.registers.rax, Errno::ENOSYS.to_register());
    assert!(task.mask().is_empty());
}

#[test]
fn calls_restart_as_the_action_says() {
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    let start = init.registers.rip;
    // Nothing to deliver: again.
    assert_eq!(init.call(RESTART, [0; 6]), Resume::Continue);
    assert_eq!((init.registers.rip, init.registers.rax), (start, RESTART));
    // A handler without SA_RESTART sees EINTR below it.
    handle(&task, Signal::SIGUSR1, 0);
    kernel.kill(&task, 1, Some(Signal::SIGUSR1)).expect("may");
    assert_eq!(init.call(RESTART, [0; 6]), Resume::Continue);
    init.registers.rsp += 8;
    assert_eq!(init.call(SIGRETURN, [0; 6]), Resume::Continue);
    assert_eq!((init.registers.rip, init.registers.rax), (start + 2, Errno::EINTR.to_register()));
}

#[test]
fn one_thread_ends_all() {
    let (kernel, mut init) = boot(Calls(calls));
    let (pid, mut child) = forked(&mut init);
    assert_eq!(child.call(THREAD, [0; 6]), Resume::Return(3));
    let mut second = child.children.pop().expect("a thread");
    assert_eq!(second.registers.rsp, 0x6000_0000);
    assert_eq!(second.call(EXIT_GROUP, [3, 0, 0, 0, 0, 0]), Resume::Exit);
    assert_eq!(child.trap(Trap::Interrupted), Resume::ExitProcess);
    assert_eq!(init.call(WAIT, [0; 6]), Resume::Return((pid as u64) << 32 | 0x300));
    assert_eq!(kernel.live_tasks(), 1);
}

#[test]
fn a_kill_ends_a_process_but_not_the_first_one() {
    let (kernel, mut init) = boot(Calls(calls));
    let (pid, mut child) = forked(&mut init);
    let task = kernel.task(1).expect("init");
    kernel.kill(&task, 1, Some(Signal::SIGKILL)).expect("accepted");
    kernel.kill(&task, 1, Some(Signal::SIGTERM)).expect("accepted");
    assert_eq!(init.trap(Trap::Interrupted), Resume::Continue);
    kernel.kill(&task, pid, Some(Signal::SIGTERM)).expect("may");
    assert_eq!(child.trap(Trap::Interrupted), Resume::ExitProcess);
    assert_eq!(init.call(WAIT, [0; 6]), Resume::Return((pid as u64) << 32 | 15));
    assert_eq!(kernel.kill(&task, pid, None), Err(Errno::ESRCH));
    let outside = SigInfo::new(Signal::SIGKILL, 0);
    kernel.send_to_group(task.group(), Signal::SIGKILL, outside).expect("from outside");
    assert_eq!(init.trap(Trap::Interrupted), Resume::ExitProcess);
    assert_eq!(kernel.reap_orphan(1), Some(WaitStatus::Signaled(Signal::SIGKILL, false)));
}

#[test]
fn orphans_are_adopted_and_die_with_the_first_process() {
    let (kernel, mut init) = boot(Calls(calls));
    let (_, mut child) = forked(&mut init);
    let (grand, mut grandchild) = forked(&mut child);
    assert_eq!(child.call(EXIT_GROUP, [0; 6]), Resume::ExitProcess);
    assert_eq!(kernel.parent_of(grand), 1);
    assert_eq!(init.call(EXIT_GROUP, [0; 6]), Resume::ExitProcess);
    assert_eq!(grandchild.trap(Trap::Interrupted), Resume::ExitProcess);
    assert_eq!(kernel.live_tasks(), 0);
    assert_eq!(kernel.reap_orphan(1), Some(WaitStatus::Exited(0)));
}

#[test]
fn stop_and_continue_are_reported() {
    let (kernel, mut init) = boot(Calls(calls));
    let (pid, child) = forked(&mut init);
    let task = kernel.task(1).expect("init");
    let group = kernel.process(pid).expect("alive");
    kernel.kill(&task, pid, Some(Signal::SIGSTOP)).expect("may");
    let guest = std::thread::spawn(move || {
        let mut child = child;
        child.trap(Trap::Interrupted)
    });
    while group.stopped().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(init.call(WAIT, [2, 0, 0, 0, 0, 0]), Resume::Return((pid as u64) << 32 | 0x137f));
    kernel.kill(&task, pid, Some(Signal::SIGCONT)).expect("may");
    assert_eq!(guest.join().expect("no panic"), Resume::Continue);
    assert_eq!(init.call(WAIT, [8, 0, 0, 0, 0, 0]), Resume::Return((pid as u64) << 32 | 0xffff));
}

#[test]
fn exec_keeps_the_process_and_forgets_handlers() {
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    handle(&task, Signal::SIGUSR1, 0);
    assert_eq!(init.call(EXEC, [0; 6]), Resume::Continue);
    assert_eq!(init.registers.rip, 0x50_0000);
    assert_eq!(task.name(), b"new");
    assert_eq!(task.sigaction(Signal::SIGUSR1, None).map(|a| a.handler), Ok(0));
}

#[test]
fn tasks_are_bounded() {
    let (kernel, mut init) = boot(Calls(calls));
    for _ in 0..15 {
        assert!(matches!(init.call(FORK, [0; 6]), Resume::Return(2..=16)));
    }
    assert_eq!(init.call(FORK, [0; 6]), Resume::Return(Errno::EAGAIN.to_register()));
    assert_eq!(kernel.live_tasks(), 16);
}

#[test]
fn timers_send_signals() {
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    handle(&task, Signal::SIGALRM, 0);
    let ms = std::time::Duration::from_millis;
    let setting = TimerSetting { left: ms(2), period: ms(0) };
    assert_eq!(task.set_interval_timer(IntervalTimer::Real, setting), TimerSetting::default());
    let set = SigSet::of(Signal::SIGUSR2);
    task.set_mask(set);
    let id = task.timer_create(0, Counted::Wall, TimerNotify::Process(Signal::SIGUSR2, 77)).expect("room");
    task.timer_settime(id, Some(First::After(ms(1))), ms(0)).expect("exists");
    let late = std::time::Instant::now().checked_add(ms(5000));
    let found = loop {
        match task.sigtimedwait(set, late) {
            Err(Errno::EINTR) => assert_eq!(init.trap(Trap::Interrupted), Resume::Continue),
            other => break other.map(|(signal, info)| (signal, info.code)),
        }
    };
    assert_eq!(found, Ok((Signal::SIGUSR2, abi::signal::SI_TIMER)));
    assert_eq!(task.timer_delete(id), Ok(()));
    while init.registers.rip != 0x1234 {
        assert_eq!(init.trap(Trap::Interrupted), Resume::Continue);
        std::thread::yield_now();
    }
}

#[test]
fn processor_time_expires_timers_and_limits() {
    use abi::limits::{Resource, Rlimit};
    let (kernel, mut init) = boot(Calls(calls));
    let task = kernel.task(1).expect("init");
    let ms = std::time::Duration::from_millis;
    // The fake's process runs all the time.
    let set = SigSet::of(Signal::SIGPROF).with(Signal::SIGVTALRM).with(Signal::SIGUSR1);
    task.set_mask(set);
    let setting = TimerSetting { left: ms(5), period: ms(5) };
    for which in [IntervalTimer::Prof, IntervalTimer::Virtual] {
        assert_eq!(task.set_interval_timer(which, setting), TimerSetting::default());
        assert_eq!(task.interval_timer(which).period, ms(5));
    }
    let own = Counted::Process(Arc::downgrade(task.group()));
    let id = task.timer_create(2, own, TimerNotify::Process(Signal::SIGUSR1, 0)).expect("room");
    task.timer_settime(id, Some(First::Used(ms(1))), ms(0)).expect("exists");
    let late = std::time::Instant::now().checked_add(ms(10_000));
    let mut missing = set;
    while !missing.is_empty() {
        let (signal, _) = task.sigtimedwait(missing, late).expect("all three come");
        missing.remove(signal);
    }
    let limit = Rlimit::new(0, 0);
    task.group().set_limit(Resource::Cpu, limit, true).expect("lower");
    task.group().watch_processor_time(&kernel);
    while !task.group().is_ending() {
        std::thread::sleep(ms(1));
    }
    assert_eq!(init.trap(Trap::Interrupted), Resume::ExitProcess);
    assert_eq!(task.group().ended(), Some(WaitStatus::Signaled(Signal::SIGKILL, false)));
}
