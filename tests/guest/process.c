/* fork, exec, wait, exit, ids, sessions, limits: fork(2), wait(2), credentials(7), setrlimit(2), ... */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

extern char **environ;

static void waiting(void)
{
    int status;
    CHECK_ERRNO("wait without children", wait(&status), ECHILD);
    pid_t pid = fork();
    if (!pid)
        _exit(42);
    CHECK_EQ("waitpid", waitpid(pid, &status, 0), pid);
    CHECK("exit status", WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK_ERRNO("waited for already", waitpid(pid, &status, 0), ECHILD);
    pid = fork();
    if (!pid)
        _exit(0x1ff);
    waitpid(pid, &status, 0);
    CHECK_EQ("exit status has eight bits", WEXITSTATUS(status), 0xff);
    pid = fork();
    if (!pid)
        for (;;)
            pause();
    CHECK_EQ("WNOHANG", waitpid(pid, &status, WNOHANG), 0);
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    CHECK("killed by a signal", WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    pid = fork();
    if (!pid)
        for (;;)
            pause();
    kill(pid, SIGSTOP);
    CHECK_EQ("WUNTRACED", waitpid(pid, &status, WUNTRACED), pid);
    CHECK("stopped", WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    kill(pid, SIGCONT);
    CHECK_EQ("WCONTINUED", waitpid(pid, &status, WCONTINUED), pid);
    CHECK("continued", WIFCONTINUED(status));
    siginfo_t info = {0};
    kill(pid, SIGKILL);
    CHECK_EQ("waitid WNOWAIT", waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
    CHECK("waitid info", info.si_pid == pid && info.si_code == CLD_KILLED && info.si_status == SIGKILL);
    CHECK_EQ("still there", waitpid(pid, &status, 0), pid);
    CHECK_ERRNO("waitid without a kind", waitid(P_ALL, 0, &info, 0), EINVAL);
    CHECK_ERRNO("waitpid bad options", waitpid(-1, &status, 0x100), EINVAL);
    signal(SIGCHLD, SIG_IGN);
    pid = fork();
    if (!pid)
        _exit(1);
    CHECK_ERRNO("ignored SIGCHLD reaps", waitpid(pid, &status, 0), ECHILD);
    signal(SIGCHLD, SIG_DFL);
}

static void memory_of_a_child(void)
{
    int *private_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int *shared_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *private_page = *shared_page = 1;
    pid_t pid = fork();
    if (!pid) {
        *private_page = 2;
        *shared_page = 2;
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    CHECK_EQ("private memory is copied", *private_page, 1);
    CHECK_EQ("shared memory is shared", *shared_page, 2);
    volatile int seen = 0;
    pid = vfork();
    if (!pid) {
        seen = 7;
        _exit(0);
    }
    CHECK_EQ("vfork shares memory", seen, 7);
    waitpid(pid, NULL, 0);
}

static void executing(void)
{
    CHECK_ERRNO("exec of nothing", execl("/no/such/program", "x", NULL), ENOENT);
    CHECK_ERRNO("exec of a directory", execl("/tmp", "x", NULL), EACCES);
    int fd = open("text", O_CREAT | O_WRONLY, 0755);
    write(fd, "not a program\n", 14);
    close(fd);
    CHECK_ERRNO("exec of text", execl("text", "x", NULL), ENOEXEC);
    fd = open("script", O_CREAT | O_WRONLY, 0755);
    write(fd, "#!/no/such/interpreter\n", 23);
    close(fd);
    CHECK_ERRNO("missing interpreter", execl("./script", "x", NULL), ENOENT);
    chmod("text", 0644);
    CHECK_ERRNO("not executable", execl("text", "x", NULL), EACCES);
    int status;
    pid_t pid = fork();
    if (!pid) {
        execl("/bin/sh", "sh", "-c", "exit 7", NULL);
        _exit(99);
    }
    waitpid(pid, &status, 0);
    CHECK_EQ("exec a shell", WEXITSTATUS(status), 7);
    char *argv[] = {"sh", "-c", "test \"$X\" = y", NULL}, *env[] = {"X=y", NULL};
    CHECK_EQ("posix_spawn", posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, env), 0);
    waitpid(pid, &status, 0);
    CHECK_EQ("environment arrives", WEXITSTATUS(status), 0);
    int pipe_fds[2];
    CHECK_EQ("pipe2", pipe2(pipe_fds, O_CLOEXEC), 0);
    pid = fork();
    if (!pid) {
        char script[64];
        snprintf(script, sizeof script, "test ! -e /proc/self/fd/%d", pipe_fds[0]);
        execl("/bin/sh", "sh", "-c", script, NULL);
        _exit(99);
    }
    waitpid(pid, &status, 0);
    CHECK_EQ("close on exec", WEXITSTATUS(status), 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void identities(void)
{
    CHECK_EQ("getpid is gettid of the leader", getpid(), syscall(SYS_gettid));
    pid_t parent = getpid(), pid = fork();
    int status;
    if (!pid)
        _exit(getppid() == parent && getpgrp() == getpgid(parent) ? 0 : 1);
    waitpid(pid, &status, 0);
    CHECK_EQ("parent and group", WEXITSTATUS(status), 0);
    pid = fork();
    if (!pid)
        _exit(setsid() == getpid() && getsid(0) == getpid() && getpgrp() == getpid() ? 0 : 1);
    waitpid(pid, &status, 0);
    CHECK_EQ("setsid", WEXITSTATUS(status), 0);
    pid = fork();
    if (!pid)
        _exit(setpgid(0, 0) || setsid() != -1 || errno != EPERM);
    waitpid(pid, &status, 0);
    CHECK_EQ("setsid of a group leader", WEXITSTATUS(status), 0);
    CHECK_ERRNO("getpgid of nobody", getpgid(4000000), ESRCH);
    CHECK_ERRNO("setpgid negative", setpgid(0, -1), EINVAL);
    pid = fork();
    if (!pid) {
        int bad = setgid(1000) || setuid(1000) || getuid() != 1000 || geteuid() != 1000;
        bad |= setuid(0) != -1 || errno != EPERM;
        bad |= open("/root", O_RDONLY) != -1;
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    CHECK_EQ("giving up root", WEXITSTATUS(status), 0);
    uid_t r, e, s;
    CHECK_EQ("getresuid", getresuid(&r, &e, &s), 0);
    CHECK("all root", !r && !e && !s);
    struct utsname name;
    CHECK_EQ("uname", uname(&name), 0);
    CHECK("machine", !strcmp(name.sysname, "Linux") && !strcmp(name.machine, "x86_64"));
    CHECK_ERRNO("uname bad pointer", syscall(SYS_uname, 1), EFAULT);
}

static void settings(void)
{
    char name[16] = "";
    CHECK_EQ("PR_SET_NAME", prctl(PR_SET_NAME, "a-rather-long-name"), 0);
    CHECK_EQ("PR_GET_NAME", prctl(PR_GET_NAME, name), 0);
    CHECK("names are cut at 15", !strcmp(name, "a-rather-long-n"));
    CHECK_EQ("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGUSR1), 0);
    int got = 0;
    CHECK_EQ("PR_GET_PDEATHSIG", (prctl(PR_GET_PDEATHSIG, &got), got), SIGUSR1);
    prctl(PR_SET_PDEATHSIG, 0);
    CHECK_ERRNO("PR_SET_PDEATHSIG bad", prctl(PR_SET_PDEATHSIG, 99), EINVAL);
    CHECK_ERRNO("prctl unknown", prctl(123456), EINVAL);
    CHECK_EQ("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    struct rlimit limit;
    CHECK_EQ("getrlimit", getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64;
    CHECK_EQ("setrlimit", setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_ERRNO("beyond the limit", fcntl(0, F_DUPFD, 64), EINVAL);
    CHECK_ERRNO("dup2 beyond the limit", dup2(0, 64), EBADF);
    limit.rlim_cur = limit.rlim_max + 1;
    CHECK_ERRNO("soft above hard", setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK_ERRNO("getrlimit unknown", getrlimit(99, &limit), EINVAL);
    struct rusage usage;
    CHECK_EQ("getrusage", getrusage(RUSAGE_SELF, &usage), 0);
    CHECK_ERRNO("getrusage unknown", getrusage(99, &usage), EINVAL);
    cpu_set_t set;
    CHECK_EQ("sched_getaffinity", sched_getaffinity(0, sizeof set, &set), 0);
    CHECK("some cpu", CPU_COUNT(&set) >= 1);
    CHECK_EQ("sched_getscheduler", sched_getscheduler(0), SCHED_OTHER);
    CHECK_EQ("sched_yield", sched_yield(), 0);
    errno = 0;
    CHECK_EQ("getpriority", getpriority(PRIO_PROCESS, 0), 0);
    CHECK_ERRNO("unknown system call", syscall(100000), ENOSYS);
}

static void *sleep_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void *count(void *counter)
{
    for (int i = 0; i < 1000; i++)
        __atomic_fetch_add((int *)counter, 1, __ATOMIC_SEQ_CST);
    return (void *)(long)(syscall(SYS_gettid) != getpid());
}

static void threads(void)
{
    pthread_t thread[8];
    int counter = 0, others = 0;
    for (int i = 0; i < 8; i++)
        pthread_create(&thread[i], NULL, count, &counter);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(thread[i], &result);
        others += result != NULL;
    }
    CHECK_EQ("threads share memory", counter, 8000);
    CHECK_EQ("threads have ids of their own", others, 8);
    int status;
    pid_t pid = fork();
    if (!pid) {
        pthread_create(&thread[0], NULL, sleep_for_ever, NULL);
        execl("/bin/sh", "sh", "-c", "exit 3", NULL);
    }
    waitpid(pid, &status, 0);
    CHECK_EQ("exec ends other threads", WEXITSTATUS(status), 3);
}

static void many_forks(void)
{
    int bad = 0;
    for (int i = 0; i < 200; i++) {
        int status;
        pid_t pid = fork();
        if (!pid)
            _exit(i & 0x7f);
        bad += waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != (i & 0x7f);
    }
    CHECK_EQ("two hundred forks", bad, 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    enter_scratch();
    waiting();
    memory_of_a_child();
    executing();
    identities();
    settings();
    threads();
    many_forks();
    return finish();
}
