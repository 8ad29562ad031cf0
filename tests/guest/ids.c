/* Ids, capabilities, prctl, scheduling. Everything that cannot be undone is done by a child. */
#include "guest.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#define IN_CHILD(name, ...) do { \
    int status_; \
    CHILD(status_, { int good = 1; __VA_ARGS__; _exit(!good); }); \
    CHECK(name, status_ == 0); \
} while (0)
static int ids(uid_t r, uid_t e, uid_t s) {
    uid_t real, effective, saved;
    return !getresuid(&real, &effective, &saved) && real == r && effective == e && saved == s;
}
static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
static struct __user_cap_data_struct caps[2];
static int effective(void) {
    return !syscall(SYS_capget, &header, caps) && (caps[0].effective || caps[1].effective);
}
static int permitted(void) {
    return !syscall(SYS_capget, &header, caps) && (caps[0].permitted || caps[1].permitted);
}
static int fails(long result, int error) { return result == -1 && errno == error; }
static void users(void) {
    IN_CHILD("setuid of root is for good", {
        good &= !syscall(SYS_setuid, 1000) && ids(1000, 1000, 1000) && !effective() && !permitted();
        good &= fails(syscall(SYS_setuid, 0), EPERM) && fails(syscall(SYS_setgroups, 0, NULL), EPERM);
        good &= fails(syscall(SYS_setgid, 7), EPERM);
    });
    IN_CHILD("an effective id comes back", {
        good &= !syscall(SYS_setresuid, -1, 1000, -1) && ids(0, 1000, 0) && !effective() && permitted();
        good &= !syscall(SYS_setresuid, -1, 0, -1) && ids(0, 0, 0) && effective();
    });
    IN_CHILD("setreuid sets the saved id", {
        good &= !syscall(SYS_setreuid, 1000, 1001) && ids(1000, 1001, 1001);
        good &= !syscall(SYS_setreuid, 1001, 1000) && ids(1001, 1000, 1000);
        good &= fails(syscall(SYS_setreuid, 0, -1), EPERM);
    });
    IN_CHILD("setuid of a user sets the effective id", {
        good &= !syscall(SYS_setresuid, 1000, 1001, 1002);
        good &= !syscall(SYS_setuid, 1002) && ids(1000, 1002, 1002);
        good &= fails(syscall(SYS_setuid, 1001), EPERM);
    });
    IN_CHILD("setfsuid tells the old id", {
        good &= setfsuid(1000) == 0 && setfsuid(-1) == 1000 && setfsuid(0) == 1000 && setfsuid(0) == 0;
    });
    IN_CHILD("file ids follow", {
        good &= !syscall(SYS_setresuid, -1, 1000, -1) && setfsuid(-1) == 1000;
    });
    IN_CHILD("groups", {
        gid_t set[3] = {30, 10, 20}, got[3];
        good &= !setgroups(3, set) && getgroups(0, NULL) == 3 && getgroups(3, got) == 3;
        good &= fails(getgroups(2, got), EINVAL) && fails(syscall(SYS_setgroups, 65537, set), EINVAL);
        good &= fails(syscall(SYS_setgroups, 1, NULL), EFAULT) && !syscall(SYS_setgroups, 0, NULL);
        good &= getgroups(0, NULL) == 0;
        gid_t r, e, s;
        good &= !syscall(SYS_setresgid, 5, 6, 7) && !getresgid(&r, &e, &s) && r == 5 && e == 6 && s == 7;
        good &= !syscall(SYS_setregid, -1, 5) && !getresgid(&r, &e, &s) && r == 5 && e == 5 && s == 7;
        good &= effective();
    });
    FAILS("no id", syscall(SYS_setuid, -1), EINVAL);
    FAILS("no group id", syscall(SYS_setgid, -1), EINVAL);
}
static void capabilities(void) {
    IN_CHILD("kept capabilities", {
        good &= prctl(PR_GET_KEEPCAPS) == 0 && !prctl(PR_SET_KEEPCAPS, 1) && prctl(PR_GET_KEEPCAPS) == 1;
        good &= !syscall(SYS_setuid, 1000) && permitted() && !effective();
        caps[0].effective = 1 << CAP_SETUID, caps[1].effective = 0;
        good &= !syscall(SYS_capset, &header, caps) && !syscall(SYS_setuid, 0) && ids(0, 0, 0);
    });
    IN_CHILD("capset only takes away", {
        permitted();
        caps[0].permitted = caps[0].effective = 1 << CAP_KILL;
        caps[1].permitted = caps[1].effective = 0;
        caps[0].inheritable = caps[1].inheritable = 0;
        good &= !syscall(SYS_capset, &header, caps);
        caps[0].permitted |= 1;
        good &= fails(syscall(SYS_capset, &header, caps), EPERM);
        good &= fails(syscall(SYS_setuid, 5), EPERM) && fails(prctl(PR_CAPBSET_DROP, 1), EPERM);
    });
    IN_CHILD("versions", {
        struct __user_cap_header_struct odd = {1, 0};
        good &= fails(syscall(SYS_capget, &odd, caps), EINVAL) && odd.version == _LINUX_CAPABILITY_VERSION_3;
        odd.version = 1;
        good &= !syscall(SYS_capget, &odd, NULL);
        struct __user_cap_header_struct other = {_LINUX_CAPABILITY_VERSION_3, 1 << 22};
        good &= fails(syscall(SYS_capget, &other, caps), ESRCH) && fails(syscall(SYS_capset, &other, caps), EPERM);
    });
    IN_CHILD("the bounding set", {
        good &= prctl(PR_CAPBSET_READ, CAP_KILL) == 1 && !prctl(PR_CAPBSET_DROP, CAP_KILL);
        good &= prctl(PR_CAPBSET_READ, CAP_KILL) == 0 && fails(prctl(PR_CAPBSET_READ, 63), EINVAL);
        good &= fails(prctl(PR_CAPBSET_DROP, 63), EINVAL);
    });
    IN_CHILD("the ambient set", {
        good &= fails(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM);
        permitted();
        caps[0].inheritable = 1 << CAP_KILL;
        good &= !syscall(SYS_capset, &header, caps);
        good &= !prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0);
        good &= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 1;
        good &= !prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        good &= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 0;
        good &= fails(prctl(PR_CAP_AMBIENT, 9, CAP_KILL, 0, 0), EINVAL);
    });
    IN_CHILD("secure bits lock", {
        good &= prctl(PR_GET_SECUREBITS) == 0 && !prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED);
        good &= fails(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED), EPERM);
        good &= fails(prctl(PR_SET_SECUREBITS, 1 << 20), EPERM);
    });
    IN_CHILD("no new privileges", {
        good &= prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        good &= prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && fails(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    });
}
static void process_options(void) {
    char name[16];
    int value = -1, status;
    CHECK("a name is cut", !prctl(PR_SET_NAME, "a name of twenty chr") && !prctl(PR_GET_NAME, name)
          && !strcmp(name, "a name of twent"));
    FAILS("no name", prctl(PR_SET_NAME, NULL), EFAULT);
    CHECK("death signal", !prctl(PR_SET_PDEATHSIG, SIGUSR1) && !prctl(PR_GET_PDEATHSIG, &value) && value == SIGUSR1);
    CHILD(status, { int v = 9; _exit(prctl(PR_GET_PDEATHSIG, &v) || v); });
    CHECK("is not inherited", status == 0);
    FAILS("no such death signal", prctl(PR_SET_PDEATHSIG, 100), EINVAL);
    prctl(PR_SET_PDEATHSIG, 0);
    CHECK("dumpable", prctl(PR_GET_DUMPABLE) == 1);
    CHILD(status, _exit(syscall(SYS_setuid, 1000) || prctl(PR_GET_DUMPABLE) != 0));
    CHECK("not after changing ids", status == 0);
    FAILS("no such dumping", prctl(PR_SET_DUMPABLE, 5), EINVAL);
    CHECK("subreaper", !prctl(PR_SET_CHILD_SUBREAPER, 1) && !prctl(PR_GET_CHILD_SUBREAPER, &value) && value == 1);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) { usleep(20000); _exit(7); }
        _exit(0);
    }
    waitpid(child, &status, 0);
    CHECK("adopts orphans", wait(&status) > 0 && WEXITSTATUS(status) == 7);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    CHECK("timer slack", prctl(PR_SET_TIMERSLACK, 7000) == 0 && prctl(PR_GET_TIMERSLACK) == 7000);
    FAILS("no such option", prctl(12345, 0, 0, 0, 0), EINVAL);
    CHECK("personality", personality(0xffffffff) == 0 && personality(ADDR_NO_RANDOMIZE) == 0
          && personality(0) == ADDR_NO_RANDOMIZE);
}
static void scheduling(void) {
    cpu_set_t set, one;
    struct sched_param param = {0};
    CHECK("affinity", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK("one processor", !sched_setaffinity(0, sizeof one, &one) && !sched_getaffinity(0, sizeof set, &set)
          && CPU_EQUAL(&set, &one));
    CPU_ZERO(&one);
    FAILS("no processor", sched_setaffinity(0, sizeof one, &one), EINVAL);
    FAILS("nobody's", sched_getaffinity(1 << 22, sizeof set, &set), ESRCH);
    FAILS("too small", syscall(SYS_sched_getaffinity, 0, 0, &set), EINVAL);
    CHECK("policy", sched_getscheduler(0) == SCHED_OTHER);
    CHECK("batch", !sched_setscheduler(0, SCHED_BATCH, &param) && sched_getscheduler(0) == SCHED_BATCH);
    param.sched_priority = 5;
    FAILS("batch has no priority", sched_setscheduler(0, SCHED_BATCH, &param), EINVAL);
    FAILS("no such policy", sched_setscheduler(0, 44, &param), EINVAL);
    FAILS("of nobody", sched_getscheduler(-1), EINVAL);
    CHECK("range", sched_get_priority_max(SCHED_FIFO) == 99 && sched_get_priority_min(SCHED_RR) == 1);
    struct timespec slice;
    CHECK("slice", sched_rr_get_interval(0, &slice) == 0);
    CHECK("yield", sched_yield() == 0);
    errno = 0;
    CHECK("nice", getpriority(PRIO_PROCESS, 0) == 0 && !setpriority(PRIO_PROCESS, 0, 5)
          && getpriority(PRIO_PROCESS, 0) == 5);
    int status;
    CHILD(status, _exit(getpriority(PRIO_PROCESS, 0) != 5));
    CHECK("nice is inherited", status == 0);
    IN_CHILD("a user only gets nicer", {
        good &= !syscall(SYS_setuid, 1000) && !setpriority(PRIO_PROCESS, 0, 30);
        good &= getpriority(PRIO_PROCESS, 0) == 19 && fails(setpriority(PRIO_PROCESS, 0, 0), EACCES);
        struct sched_param first = {1};
        good &= fails(sched_setscheduler(0, SCHED_FIFO, &first), EPERM);
        good &= fails(sched_setaffinity(1, sizeof set, &set), EPERM);
    });
    FAILS("priority of nobody", getpriority(PRIO_PROCESS, 1 << 22), ESRCH);
    FAILS("priority of what", getpriority(9, 0), EINVAL);
    CHECK("I/O priority", !syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3) && syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 3));
    FAILS("no such I/O priority", syscall(SYS_ioprio_set, 1, 0, 5 << 13), EINVAL);
}
static void limits(void) {
    struct rlimit limit, old;
    IN_CHILD("limits", {
        good &= !getrlimit(RLIMIT_NOFILE, &old) && old.rlim_cur <= old.rlim_max;
        limit.rlim_cur = 10, limit.rlim_max = 20;
        good &= !setrlimit(RLIMIT_NOFILE, &limit) && !prlimit(0, RLIMIT_NOFILE, NULL, &old) && old.rlim_max == 20;
        int fd = 0;
        while ((fd = dup(0)) >= 0 && fd < 30) {}
        good &= errno == EMFILE;
        limit.rlim_cur = 21;
        good &= fails(setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
        good &= !syscall(SYS_setuid, 1000);
        limit.rlim_cur = limit.rlim_max = 21;
        good &= fails(setrlimit(RLIMIT_NOFILE, &limit), EPERM);
        good &= fails(prlimit(1, RLIMIT_NOFILE, NULL, &old), EPERM);
    });
    FAILS("no such limit", syscall(SYS_getrlimit, 99, &limit), EINVAL);
    FAILS("nobody's limit", prlimit(1 << 22, RLIMIT_NOFILE, NULL, &old), ESRCH);
}
/* Run again as another program: which capabilities are there? */
static int started(const char *what, char *self) {
    int status;
    CHILD(status, {
        permitted();
        caps[0].permitted = caps[0].effective = 1 << CAP_KILL;
        caps[1].permitted = caps[1].effective = 0;
        caps[0].inheritable = caps[1].inheritable = 0;
        syscall(SYS_capset, &header, caps);
        if (*what == 'n') prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        execl("/proc/self/exe", self, "caps", NULL);
    });
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
int main(int argc, char **argv) {
    if (argc > 1) return permitted() && caps[0].permitted == 1 << CAP_KILL ? 1 : 2;
    CHECK("a program of root has all again", started("root", argv[0]) == 2);
    CHECK("not without new privileges", started("no new", argv[0]) == 1);
    users();
    capabilities();
    process_options();
    scheduling();
    limits();
    return done();
}
