/* The guest's own filters of system calls (seccomp(2)). Children are judged, the test is not. */
#include "guest.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
static volatile sig_atomic_t trapped, trapped_nr, trapped_errno;
static void on_sys(int signal, siginfo_t *info, void *context) {
    trapped = info->si_code == 1 && info->si_arch == AUDIT_ARCH_X86_64;
    trapped_nr = info->si_syscall, trapped_errno = info->si_errno;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 1234;
    (void)signal;
}
/* `action` for call `nr`; everything else is allowed. */
static int filter(int nr, unsigned action, unsigned flags) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}
static int fails(long result, int error) { return result == -1 && errno == error; }
#define JUDGED(name, ...) do { \
    int status_; \
    CHILD(status_, { int good = !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); __VA_ARGS__; _exit(!good); }); \
    CHECK(name, status_ == 0); \
} while (0)
#define KILLED(name, by, ...) do { \
    int status_; \
    CHILD(status_, { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); __VA_ARGS__; _exit(0); }); \
    CHECK(name, WIFSIGNALED(status_) && WTERMSIG(status_) == (by)); \
} while (0)
static void *idle(void *arg) {
    while (!*(volatile int *)arg) usleep(1000);
    return (void *)(long)(syscall(SYS_getppid) == -1 ? errno : 0);
}
static void *diverge(void *arg) {
    filter(SYS_getpgrp, SECCOMP_RET_ERRNO | 5, 0);
    *(volatile int *)arg = 2;
    while (*(volatile int *)arg == 2) usleep(1000);
    return NULL;
}
int main(int argc, char **argv) {
    if (argc > 1) return fails(syscall(SYS_getppid), EXDEV) ? 42 : 1;
    int status, go = 0;
    CHECK("no filter yet", prctl(PR_GET_SECCOMP) == 0);
    JUDGED("an error", {
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, 0) && fails(syscall(SYS_getppid), EXDEV);
        good &= prctl(PR_GET_SECCOMP) == 2 && getpid() > 0;
    });
    JUDGED("error zero is success", {
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO, 0) && syscall(SYS_getppid) == 0;
    });
    JUDGED("the harshest decides", {
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, 0) && !filter(SYS_getppid, SECCOMP_RET_LOG, 0);
        good &= fails(syscall(SYS_getppid), EXDEV);
    });
    JUDGED("of equals the newest", {
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, 0) && !filter(SYS_getppid, SECCOMP_RET_ERRNO | 5, 0);
        good &= fails(syscall(SYS_getppid), 5);
    });
    JUDGED("no tracer", { good &= !filter(SYS_getppid, SECCOMP_RET_TRACE, 0) && fails(syscall(SYS_getppid), ENOSYS); });
    JUDGED("arguments are judged", {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 3),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 77, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {6, code};
        good &= !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
        good &= fails(syscall(SYS_getpgid, 77), EXDEV) && syscall(SYS_getpgid, 0) > 0;
    });
    JUDGED("a trap is a signal, and its handler's result the call's", {
        struct sigaction action = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
        sigaction(SIGSYS, &action, NULL);
        good &= !filter(SYS_getppid, SECCOMP_RET_TRAP | 99, 0) && syscall(SYS_getppid) == 1234;
        good &= trapped && trapped_nr == SYS_getppid && trapped_errno == 99;
    });
    KILLED("a trap nobody handles", SIGSYS, { filter(SYS_getppid, SECCOMP_RET_TRAP, 0); syscall(SYS_getppid); });
    KILLED("kill the process", SIGSYS, { filter(SYS_getppid, SECCOMP_RET_KILL_PROCESS, 0); syscall(SYS_getppid); });
    KILLED("kill the only thread", SIGSYS, { filter(SYS_getppid, SECCOMP_RET_KILL_THREAD, 0); syscall(SYS_getppid); });
    KILLED("strict", SIGKILL, { prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_getpid); });
    CHILD(status, { prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_exit, 3); });
    CHECK("strict may end", WIFEXITED(status) && WEXITSTATUS(status) == 3);
    JUDGED("children and programs inherit", {
        int inner;
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, 0);
        CHILD(inner, { execl("/proc/self/exe", argv[0], "again", NULL); });
        good &= WIFEXITED(inner) && WEXITSTATUS(inner) == 42;
    });
    JUDGED("all threads", {
        pthread_t thread;
        void *result;
        good &= !pthread_create(&thread, NULL, idle, &go);
        good &= !filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, SECCOMP_FILTER_FLAG_TSYNC);
        go = 1;
        good &= !pthread_join(thread, &result) && (long)result == EXDEV;
    });
    JUDGED("not those that went their own way", {
        pthread_t thread;
        good &= !pthread_create(&thread, NULL, diverge, &go);
        while (go != 2) usleep(1000);
        good &= filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV, SECCOMP_FILTER_FLAG_TSYNC) > 0;
        good &= fails(filter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV,
                             SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH), ESRCH);
        good &= getppid() > 0;
        go = 3;
        pthread_join(thread, NULL);
    });
    CHILD(status, _exit(syscall(SYS_setuid, 1000) || !fails(filter(SYS_getppid, SECCOMP_RET_LOG, 0), EACCES)));
    CHECK("a user first gives up privileges", status == 0);
    JUDGED("what is no filter", {
        struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_IMM, 0)};
        struct sock_fprog endless = {1, code}, empty = {0, code}, nowhere = {1, NULL};
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &endless), EINVAL);
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &empty), EINVAL);
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &nowhere), EINVAL);
        nowhere.filter = (void *)4096;
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &nowhere), EFAULT);
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL), EFAULT);
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1 << 20, &endless), EINVAL);
        good &= fails(syscall(SYS_seccomp, 99, 0, NULL), EINVAL);
        good &= fails(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL), EINVAL);
        good &= fails(prctl(PR_SET_SECCOMP, 9, NULL), EINVAL);
    });
    unsigned action = SECCOMP_RET_ERRNO, strange = 0x12340000;
    CHECK("an action there is", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0);
    FAILS("and one there is not", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &strange), EOPNOTSUPP);
    CHECK("no filter of ours", prctl(PR_GET_SECCOMP) == 0);
    return done();
}
