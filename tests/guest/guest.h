/* As check.h, for programs that fork in the middle of things: nothing is buffered. */
#ifndef GUEST_H
#define GUEST_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

/* Unbuffered writes: a forked child must not print its parent's lines again. */
static void say(const char *verdict, const char *name, int error) {
    char line[256];
    int n = snprintf(line, sizeof line, "%s %s # errno %d\n", verdict, name, error);
    if (write(1, line, n) != n) _exit(99);
}

/* An assertion by name. */
#define CHECK(name, condition) do { \
    errno = 0; \
    int held_ = !!(condition); \
    say(held_ ? "ok" : "not ok", name, errno); \
    failures += !held_; \
} while (0)

/* The call must fail with this errno. */
#define FAILS(name, call, error) CHECK(name, (long)(call) == -1 && errno == (error))

/* The end of main: the exit status, as in check.h. */
static int done(void) {
    return failures > 100 ? 100 : failures;
}

/* A directory of our own, made current; gone at leave_scratch(). */
static char scratch_path[256];
__attribute__((unused)) static void enter_scratch(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(scratch_path, sizeof scratch_path, "%s/guest.XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(scratch_path) || chdir(scratch_path)) { perror("scratch"); exit(98); }
}
__attribute__((unused)) static void leave_scratch(void) {
    CHECK("scratch directory is empty and goes", chdir("/") == 0 && rmdir(scratch_path) == 0);
}

/* The status with which a child that runs the rest ends. */
#define CHILD(status, ...) do { \
    pid_t child_ = fork(); \
    if (child_ == 0) { __VA_ARGS__; _exit(0); } \
    if (child_ < 0 || waitpid(child_, &(status), 0) != child_) (status) = -1; \
} while (0)
#endif
