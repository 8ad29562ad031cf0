/* Signal-driven I/O: fcntl(2), F_SETOWN, F_SETSIG, O_ASYNC. */
#include "guest.h"

static volatile sig_atomic_t plain, queued, code, fd_told;
static void on_plain(int s) { (void)s; plain++; }
static void on_queued(int s, siginfo_t *info, void *context) {
    (void)s; (void)context;
    queued++;
    code = info->si_code;
    fd_told = info->si_fd;
}

int main(void) {
    int s[2], on = 1, off = 0;
    char byte;
    CHECK("a pair", socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
    signal(SIGIO, on_plain);
    struct sigaction action = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO };
    CHECK("a handler", sigaction(SIGRTMIN, &action, NULL) == 0);
    CHECK("nobody owns it", fcntl(s[0], F_GETOWN) == 0);
    CHECK("F_SETOWN", fcntl(s[0], F_SETOWN, getpid()) == 0 && fcntl(s[0], F_GETOWN) == getpid());
    FAILS("F_SETOWN of nobody", fcntl(s[0], F_SETOWN, 4194303), ESRCH);
    CHECK("quiet without O_ASYNC", write(s[1], "x", 1) == 1 && plain == 0);
    CHECK("read", read(s[0], &byte, 1) == 1);
    CHECK("FIOASYNC", ioctl(s[0], FIOASYNC, &on) == 0 && fcntl(s[0], F_GETFL) & O_ASYNC);
    CHECK("data tells", write(s[1], "x", 1) == 1 && plain >= 1);
    CHECK("F_SETSIG", fcntl(s[0], F_SETSIG, SIGRTMIN) == 0 && fcntl(s[0], F_GETSIG) == SIGRTMIN);
    plain = 0;
    CHECK("data tells by that signal", write(s[1], "x", 1) == 1 && queued >= 1 && plain == 0);
    CHECK("what and where", code == POLL_IN && fd_told == s[0]);
    CHECK("F_SETFL ends it", fcntl(s[0], F_SETFL, 0) == 0);
    queued = 0;
    CHECK("quiet again", write(s[1], "x", 1) == 1 && queued == 0);
    CHECK("a group may own it", fcntl(s[0], F_SETOWN, -getpgrp()) == 0);
    FAILS("a signal that is none", fcntl(s[0], F_SETSIG, 65), EINVAL);
    int file = open("/proc/self/status", O_RDONLY);
    FAILS("not of every file", ioctl(file, FIOASYNC, &on), ENOTTY);
    CHECK("off", ioctl(s[0], FIOASYNC, &off) == 0);
    return done();
}
