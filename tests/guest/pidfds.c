/* Processes as files: pidfd_open(2), pidfd_send_signal(2), clone(2) with CLONE_PIDFD, waitid(2). */
#include "guest.h"

#define CLONE_PIDFD_FLAG 0x1000
#define P_PIDFD_TYPE 3

static int cloned(void) {
    int pidfd = -1;
    long pid = syscall(SYS_clone, CLONE_PIDFD_FLAG | SIGCHLD, 0, &pidfd, 0, 0);
    if (pid == 0) {
        pause();
        _exit(1);
    }
    CHECK("clone gives a pidfd", pid > 0 && pidfd > 2);
    CHECK("which closes on exec", fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    return pidfd;
}

int main(void) {
    siginfo_t info;
    int pidfd = cloned();
    struct pollfd waits = { .fd = pidfd, .events = POLLIN };
    CHECK("a living process is not ready", poll(&waits, 1, 0) == 0);
    CHECK("a null signal checks", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0);
    FAILS("no such signal", syscall(SYS_pidfd_send_signal, pidfd, 65, NULL, 0), EINVAL);
    FAILS("flags", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 64), EINVAL);
    FAILS("not a pidfd", syscall(SYS_pidfd_send_signal, 1, 0, NULL, 0), EBADF);
    CHECK("WNOHANG of the living", waitid(P_PIDFD_TYPE, pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0);
    CHECK("a signal", syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0) == 0);
    CHECK("an ended process is ready", poll(&waits, 1, 10000) == 1 && waits.revents & POLLIN);
    CHECK("waitid", waitid(P_PIDFD_TYPE, pidfd, &info, WEXITED) == 0 && info.si_code == CLD_KILLED &&
                        info.si_status == SIGTERM);
    FAILS("twice", waitid(P_PIDFD_TYPE, pidfd, &info, WEXITED), ECHILD);
    FAILS("a signal to who is gone", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), ESRCH);
    close(pidfd);

    FAILS("pidfd_open of nobody", syscall(SYS_pidfd_open, 4194303, 0), ESRCH);
    FAILS("pidfd_open of zero", syscall(SYS_pidfd_open, 0, 0), EINVAL);
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    CHECK("pidfd_open of ourselves", self > 2);
    int ends[2];
    CHECK("a pipe", pipe(ends) == 0);
    int copy = syscall(SYS_pidfd_getfd, self, ends[1], 0);
    CHECK("pidfd_getfd", copy > 2 && write(copy, "x", 1) == 1);
    char byte;
    CHECK("is the same pipe", read(ends[0], &byte, 1) == 1 && byte == 'x');
    FAILS("pidfd_getfd of what is not open", syscall(SYS_pidfd_getfd, self, 999, 0), EBADF);
    int directory = open("/proc/self", O_DIRECTORY);
    CHECK("a directory of /proc does as well", syscall(SYS_pidfd_send_signal, directory, 0, NULL, 0) == 0);
    return done();
}
