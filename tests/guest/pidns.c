/* Pid namespaces (pid_namespaces(7)): clone(2), unshare(2), setns(2), and what is told of ids in them. */
#include "guest.h"
#include <sys/mount.h>

static int shared; /* a pipe's end */

/* Runs `body` as the first process of a namespace; its exit status. */
static int within(void (*body)(void)) {
    pid_t pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        body();
        _exit(failures);
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    return status;
}

static volatile sig_atomic_t got, from;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    got = signal;
    from = info->si_pid;
}

static void numbers(void) {
    CHECK("the first is 1", getpid() == 1 && syscall(SYS_gettid) == 1);
    CHECK("its parent is nobody it knows", getppid() == 0);
    CHECK("so are its group and session", getpgrp() == 0 && getsid(0) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK("its child is 2", getpid() == 2 && getppid() == 1);
        _exit(7);
    }
    CHECK("fork says so", child == 2);
    int status = 0;
    CHECK("wait says so", wait(&status) == 2 && WEXITSTATUS(status) == 7);
    CHECK("numbers go on", (child = fork()) == 3 || child == 0);
    if (child == 0) _exit(0);
    siginfo_t info = { 0 };
    CHECK("waitid", waitid(P_PID, 3, &info, WEXITED) == 0 && info.si_pid == 3);
    CHECK("setsid", setsid() == 1 && getpgrp() == 1 && getsid(0) == 1);
    FAILS("nobody else is there", kill(200, 0), ESRCH);
    FAILS("not even by getpgid", getpgid(200), ESRCH);
    FAILS("there is nobody else to kill", kill(-1, SIGTERM), ESRCH);
}

static void signals(void) {
    CHECK("the first does not hear its own", kill(1, SIGTERM) == 0 && raise(SIGKILL) == 0 && kill(1, SIGKILL) == 0);
    struct sigaction act = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    sigaction(SIGUSR1, &act, NULL);
    pid_t child = fork();
    if (child == 0) {
        kill(1, SIGUSR1);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    CHECK("a handler is run, and told by whom", got == SIGUSR1 && from == child);
}

static void orphans(void) {
    int ends[2];
    if (pipe(ends)) _exit(99);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            char byte;
            close(ends[1]);
            if (read(ends[0], &byte, 1)) _exit(99);
            CHECK("an orphan is the first's", getppid() == 1);
            _exit(3);
        }
        _exit(0);
    }
    CHECK("the child", waitpid(child, NULL, 0) == child);
    close(ends[1]);
    int status = 0;
    pid_t orphan = wait(&status);
    CHECK("the orphan", orphan == child + 1 && WEXITSTATUS(status) == 3);
}

static void crowd(void) {
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            setsid();
            for (;;) pause();
        }
    /* Ends with the others alive, who hold the pipe. */
}

static void deeper(void) {
    pid_t pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        CHECK("1 in it", getpid() == 1);
        FAILS("its parent's number is not known", kill(3, 0), ESRCH);
        _exit(0);
    }
    CHECK("2 outside", pid == 2);
    CHECK("and waited for", waitpid(2, NULL, 0) == 2);
}

static void seen_in_proc(void) {
    char text[4096], link[64] = "";
    CHECK("a namespace of mounts", unshare(CLONE_NEWNS) == 0);
    CHECK("private", mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK("a proc of our own", mount("proc", "/proc", "proc", 0, NULL) == 0);
    ssize_t n = readlink("/proc/self", link, sizeof link - 1);
    CHECK("self is 1", n == 1 && link[0] == '1');
    int fd = open("/proc/self/status", O_RDONLY);
    n = read(fd, text, sizeof text - 1);
    text[n < 0 ? 0 : n] = 0;
    CHECK("Pid is 1", strstr(text, "\nPid:\t1\nPPid:\t0\n") != NULL);
    CHECK("NSpid is 1", strstr(text, "\nNSpid:\t1\n") != NULL);
    CHECK("no other is seen", access("/proc/1", F_OK) == 0 && access("/proc/2", F_OK) == -1);
    pid_t child = fork();
    if (child == 0) {
        n = readlink("/proc/self", link, sizeof link - 1);
        CHECK("a child's self is 2", n == 1 && link[0] == '2');
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void queue(void) {
    union sigval value = { .sival_int = 5 };
    sigset_t set;
    siginfo_t info = { 0 };
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t child = fork();
    if (child == 0) _exit(sigqueue(1, SIGRTMIN, value));
    waitpid(child, NULL, 0);
    CHECK("sigqueue", sigwaitinfo(&set, &info) == SIGRTMIN && info.si_pid == child && info.si_value.sival_int == 5);
}

static void credentials(void) {
    int pair[2];
    struct ucred ucred = { 0 };
    socklen_t len = sizeof ucred;
    CHECK("a pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK("SO_PEERCRED", getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &ucred, &len) == 0 && ucred.pid == 1);
}

/* The same ids from outside: what the parent sees of a namespace below. */
static void from_outside(void) {
    int pair[2];
    struct ucred ucred = { 0 };
    socklen_t len = sizeof ucred;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) _exit(99);
    int on = 1;
    setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    pid_t pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        ssize_t n = write(pair[1], "x", 1);
        (void)n;
        for (;;) pause();
    }
    char byte, control[64];
    struct iovec iov = { &byte, 1 };
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    CHECK("a message", recvmsg(pair[0], &message, 0) == 1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head) memcpy(&ucred, CMSG_DATA(head), sizeof ucred);
    CHECK("SCM_CREDENTIALS are ours", head && ucred.pid == pid);
    CHECK("its group is ours", getpgid(pid) == getpgrp());
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n < 0 ? 0 : n] = 0;
    char line[64];
    snprintf(line, sizeof line, "\nNSpid:\t%d\t1\n", pid);
    CHECK("NSpid has both", strstr(text, line) != NULL);
    /* Enter it. */
    snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
    fd = open(path, O_RDONLY);
    struct stat own, its;
    CHECK("another than ours", stat("/proc/self/ns/pid", &own) == 0 && fstat(fd, &its) == 0 && own.st_ino != its.st_ino);
    FAILS("it is no mount namespace", setns(fd, CLONE_NEWNS), EINVAL);
    pid_t child = fork();
    if (child == 0) {
        if (setns(fd, CLONE_NEWPID)) _exit(1);
        if (getpid() == 1) _exit(2);
        pid_t inner = fork();
        if (inner == 0) _exit(getpid() == 2 && getppid() == 0 ? 0 : 3);
        int status = 0;
        waitpid(inner, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status) printf("the child that enters ended with %#x\n", status);
    CHECK("setns", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK("killed from outside", kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL);
    (void)len;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK("numbers", within(numbers) == 0);
    CHECK("signals", within(signals) == 0);
    CHECK("orphans", within(orphans) == 0);
    CHECK("deeper", within(deeper) == 0);
    CHECK("in proc", within(seen_in_proc) == 0);
    CHECK("queue", within(queue) == 0);
    CHECK("credentials", within(credentials) == 0);
    int ends[2];
    CHECK("a pipe", pipe(ends) == 0);
    shared = ends[1];
    CHECK("crowd", within(crowd) == 0);
    close(ends[1]);
    char byte;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    CHECK("all are gone with the first", read(ends[0], &byte, 1) == 0);
    from_outside();

    FAILS("no thread of another", syscall(SYS_clone, CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0, 0, 0, 0), EINVAL);
    pid_t child = fork();
    if (child == 0) {
        CHECK("unshare", unshare(CLONE_NEWPID) == 0);
        FAILS("not twice", unshare(CLONE_NEWPID), EINVAL);
        CHECK("is not for oneself", getpid() != 1);
        pid_t first = fork();
        if (first == 0) _exit(getpid());
        int status = 0;
        CHECK("but for children", waitpid(first, &status, 0) == first && WEXITSTATUS(status) == 1);
        FAILS("nobody enters a dead one", fork(), ENOMEM);
        _exit(failures);
    }
    int status = -1;
    CHECK("of a process", waitpid(child, &status, 0) == child && status == 0);
    child = fork();
    if (child == 0) {
        if (setresuid(65534, 65534, 65534)) _exit(99);
        FAILS("only for root", unshare(CLONE_NEWPID), EPERM);
        FAILS("and clone", syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0), EPERM);
        _exit(failures);
    }
    CHECK("of nobody", waitpid(child, &status, 0) == child && status == 0);
    return done();
}
