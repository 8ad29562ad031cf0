# Signals: handlers, masks, timers, waiting, interrupted calls.
import os, signal, threading, time
seen = []
signal.signal(signal.SIGUSR1, lambda s, f: seen.append(s))
os.kill(os.getpid(), signal.SIGUSR1); print(seen == [signal.SIGUSR1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigpending() == {signal.SIGUSR2}, signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2)
signal.signal(signal.SIGALRM, lambda s, f: seen.append(s)); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
end = time.monotonic() + 20
while len(seen) < 4 and time.monotonic() < end: signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0); print(len(seen) >= 4)
signal.alarm(1); start = time.monotonic(); time.sleep(1.3); print(time.monotonic() - start >= 1.3)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print(signal.sigtimedwait([signal.SIGHUP], 0.05)); os.kill(os.getpid(), signal.SIGHUP); print(signal.sigtimedwait([signal.SIGHUP], 5).si_signo)
r, w = os.pipe()
def stop(s, f): raise KeyboardInterrupt
signal.signal(signal.SIGINT, stop); threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try: os.read(r, 1)
except KeyboardInterrupt: print("interrupted")
pid = os.fork()
if pid == 0: signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.pause()
os.kill(pid, signal.SIGSTOP); print(os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]))
os.kill(pid, signal.SIGCONT); print(os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1]))
os.kill(pid, signal.SIGTERM); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
a, b = os.pipe(); os.set_blocking(b, False); signal.set_wakeup_fd(b); os.kill(os.getpid(), signal.SIGUSR1); print(os.read(a, 1)[0])
