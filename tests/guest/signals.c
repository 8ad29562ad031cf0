/* sigaction, masks, queues, alternate stacks, timers, restart: signal(7), sigaction(2), setitimer(2), ... */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

static volatile int seen, order[64], codes[64], values[64];
static volatile char *stack_at;

static void record(int signal, siginfo_t *info, void *context)
{
    char here;
    stack_at = &here;
    (void)context;
    if (seen < 64) {
        order[seen] = signal;
        codes[seen] = info->si_code;
        values[seen] = info->si_value.sival_int;
    }
    seen++;
}

static void install(int signal, int flags)
{
    struct sigaction action = {.sa_sigaction = record, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

static sigset_t only(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

static void actions(void)
{
    install(SIGUSR1, 0);
    seen = 0;
    raise(SIGUSR1);
    CHECK("handler ran", seen == 1 && order[0] == SIGUSR1 && codes[0] == SI_TKILL);
    kill(getpid(), SIGUSR1);
    CHECK("kill to oneself is prompt", seen == 2 && codes[1] == SI_USER);
    struct sigaction old;
    CHECK_EQ("old action", sigaction(SIGUSR1, NULL, &old), 0);
    CHECK("is ours", old.sa_sigaction == record && (old.sa_flags & SA_SIGINFO));
    CHECK_ERRNO("catch SIGKILL", sigaction(SIGKILL, &old, NULL), EINVAL);
    CHECK_ERRNO("catch signal 0", syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
    CHECK_ERRNO("wrong set size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
    install(SIGUSR2, SA_RESETHAND);
    raise(SIGUSR2);
    sigaction(SIGUSR2, NULL, &old);
    CHECK("SA_RESETHAND", old.sa_handler == SIG_DFL);
    CHECK_EQ("kill 0 probes", kill(getpid(), 0), 0);
    CHECK_ERRNO("kill nobody", kill(4000000, 0), ESRCH);
    CHECK_ERRNO("kill with a bad number", kill(getpid(), 65), EINVAL);
    CHECK_ERRNO("tgkill of the wrong group", syscall(SYS_tgkill, 1, 4000000, SIGUSR1), ESRCH);
}

static void masks(void)
{
    sigset_t usr1 = only(SIGUSR1), old, pending;
    install(SIGUSR1, 0);
    seen = 0;
    CHECK_EQ("block", sigprocmask(SIG_BLOCK, &usr1, &old), 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    CHECK_EQ("blocked signals wait", seen, 0);
    sigpending(&pending);
    CHECK_EQ("pending", sigismember(&pending, SIGUSR1), 1);
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    CHECK_EQ("standard signals collapse", seen, 1);
    CHECK_ERRNO("bad how", sigprocmask(99, &usr1, NULL), EINVAL);
    sigset_t full;
    sigfillset(&full);
    sigprocmask(SIG_SETMASK, &full, NULL);
    sigprocmask(SIG_SETMASK, NULL, &pending);
    CHECK("the unblockable stay", !sigismember(&pending, SIGKILL) && !sigismember(&pending, SIGSTOP));
    sigprocmask(SIG_SETMASK, &old, NULL);
    seen = 0;
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    raise(SIGUSR1);
    sigset_t none;
    sigemptyset(&none);
    CHECK_ERRNO("sigsuspend", sigsuspend(&none), EINTR);
    CHECK_EQ("delivered inside", seen, 1);
    sigprocmask(SIG_SETMASK, NULL, &pending);
    CHECK_EQ("mask restored", sigismember(&pending, SIGUSR1), 1);
    raise(SIGUSR1);
    siginfo_t info;
    CHECK_EQ("sigwaitinfo", sigwaitinfo(&usr1, &info), SIGUSR1);
    CHECK_EQ("without the handler", seen, 1);
    struct timespec brief = {0, 1000000};
    CHECK_ERRNO("sigtimedwait times out", sigtimedwait(&usr1, &info, &brief), EAGAIN);
    brief.tv_nsec = -1;
    CHECK_ERRNO("sigtimedwait bad time", sigtimedwait(&usr1, &info, &brief), EINVAL);
    int fd = signalfd(-1, &usr1, SFD_NONBLOCK);
    struct signalfd_siginfo record_;
    CHECK_ERRNO("signalfd empty", read(fd, &record_, sizeof record_), EAGAIN);
    raise(SIGUSR1);
    CHECK_EQ("signalfd", read(fd, &record_, sizeof record_), sizeof record_);
    CHECK_EQ("signalfd number", record_.ssi_signo, SIGUSR1);
    CHECK_ERRNO("signalfd short buffer", read(fd, &record_, 8), EINVAL);
    close(fd);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void realtime(void)
{
    int rt = SIGRTMIN + 1;
    sigset_t set = only(rt), old;
    sigaddset(&set, rt + 1);
    install(rt, 0);
    install(rt + 1, 0);
    sigprocmask(SIG_BLOCK, &set, &old);
    seen = 0;
    for (int i = 0; i < 5; i++) {
        sigqueue(getpid(), rt + 1, (union sigval){.sival_int = 10 + i});
        sigqueue(getpid(), rt, (union sigval){.sival_int = i});
    }
    struct timespec none = {0, 0};
    siginfo_t info;
    CHECK_EQ("lowest first", sigtimedwait(&set, &info, &none), rt);
    CHECK("in order with its value", info.si_value.sival_int == 0 && info.si_code == SI_QUEUE);
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK_EQ("all are queued", seen, 9);
    /* Handlers nest: the highest-numbered runs first to completion on return, so look at the values. */
    int sum = 0;
    for (int i = 0; i < 9; i++)
        sum += values[i];
    CHECK_EQ("none lost", sum, 1 + 2 + 3 + 4 + 10 + 11 + 12 + 13 + 14);
    pid_t child = fork();
    if (!child)
        for (;;)
            pause();
    info.si_code = SI_USER;
    CHECK_ERRNO("forge a sender", syscall(SYS_rt_sigqueueinfo, child, rt, &info), EPERM);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void stacks(void)
{
    size_t size = 65536;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = memory, .ss_size = size}, old;
    CHECK_EQ("sigaltstack", sigaltstack(&stack, &old), 0);
    CHECK_EQ("was disabled", old.ss_flags & SS_DISABLE, SS_DISABLE);
    install(SIGUSR1, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK("ran on it", stack_at >= memory && stack_at < memory + size);
    install(SIGUSR1, 0);
    raise(SIGUSR1);
    CHECK("and only when asked", stack_at < memory || stack_at >= memory + size);
    stack.ss_size = 100;
    CHECK_ERRNO("too small", sigaltstack(&stack, NULL), ENOMEM);
    stack.ss_flags = 99;
    CHECK_ERRNO("bad flags", sigaltstack(&stack, NULL), EINVAL);
    stack.ss_flags = SS_DISABLE;
    CHECK_EQ("disable", sigaltstack(&stack, NULL), 0);
    munmap(memory, size);
}

static volatile double fp_result;

static void use_fp(int signal)
{
    (void)signal;
    volatile double x = 3.0;
    for (int i = 0; i < 10; i++)
        x *= 1.5;
    fp_result = x;
    asm volatile("vpxor %%ymm0,%%ymm0,%%ymm0; vpxor %%ymm7,%%ymm7,%%ymm7" ::: "xmm0", "xmm7");
}

static void change_result(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    ucontext_t *uc = context;
    uc->uc_mcontext.gregs[REG_RIP] += 2; /* over the ud2 */
    uc->uc_mcontext.gregs[REG_RBX] = 4711;
}

static void contexts(void)
{
    signal(SIGUSR1, use_fp);
    unsigned long a[4] = {1, 2, 3, 4}, b[4] = {0};
    long pid = getpid(), result = SYS_kill;
    asm volatile("vmovdqu %2,%%ymm7\n\tsyscall\n\tvmovdqu %%ymm7,%1"
                 : "+a"(result), "=m"(b)
                 : "m"(a), "D"(pid), "S"((long)SIGUSR1)
                 : "rcx", "r11", "memory", "xmm7");
    CHECK_EQ("vector registers survive a handler", memcmp(a, b, sizeof a), 0);
    CHECK_EQ("and the call's result", result, 0);
    struct sigaction action = {.sa_sigaction = change_result, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
    long rbx = 0;
    asm volatile("xor %%ebx,%%ebx\n\tud2\n\tmov %%rbx,%0" : "=r"(rbx) : : "rbx", "memory");
    CHECK_EQ("a handler edits the context", rbx, 4711);
    signal(SIGILL, SIG_DFL);
}

static int pipes[2];
static volatile int interrupted;

/* Signals a thread again and again until it says that a call of its was interrupted: one signal could
 * come before the call begins. */
static void *insist(void *target)
{
    struct timespec pause_ = {0, 5000000};
    while (!interrupted) {
        pthread_kill(*(pthread_t *)target, SIGUSR1);
        nanosleep(&pause_, NULL);
    }
    return NULL;
}

/* A few signals, then a byte. */
static void *poke(void *target)
{
    struct timespec pause_ = {0, 10000000};
    for (int i = 0; i < 5; i++) {
        nanosleep(&pause_, NULL);
        pthread_kill(*(pthread_t *)target, SIGUSR1);
    }
    write(pipes[1], "x", 1);
    return NULL;
}

static void restart(void)
{
    pthread_t me = pthread_self(), other;
    char byte;
    pipe(pipes);
    install(SIGUSR1, 0);
    interrupted = 0;
    pthread_create(&other, NULL, insist, &me);
    CHECK_ERRNO("read is interrupted", read(pipes[0], &byte, 1), EINTR);
    interrupted = 1;
    pthread_join(other, NULL);
    write(pipes[1], "x", 1);
    CHECK_EQ("and nothing was lost", read(pipes[0], &byte, 1), 1);
    install(SIGUSR1, SA_RESTART);
    seen = 0;
    pthread_create(&other, NULL, poke, &me);
    CHECK_EQ("SA_RESTART restarts", read(pipes[0], &byte, 1), 1);
    pthread_join(other, NULL);
    CHECK_EQ("all were handled", seen, 5);
    struct timespec long_ = {1000, 0}, left = {0, 0};
    interrupted = 0;
    pthread_create(&other, NULL, insist, &me);
    CHECK_ERRNO("nanosleep never restarts after a handler", nanosleep(&long_, &left), EINTR);
    interrupted = 1;
    CHECK("tells what is left", left.tv_sec > 900 && left.tv_sec <= 1000);
    pthread_join(other, NULL);
    signal(SIGUSR1, SIG_IGN);
    long_ = (struct timespec){0, 60000000};
    pthread_create(&other, NULL, poke, &me);
    CHECK_EQ("ignored signals do not interrupt", nanosleep(&long_, NULL), 0);
    pthread_join(other, NULL);
}

static void timers(void)
{
    install(SIGALRM, 0);
    seen = 0;
    /* Kept back until it is waited for: it may come before that. */
    sigset_t alarm_only, before;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, &before);
    struct itimerval soon = {{0, 0}, {0, 5000}}, old;
    CHECK_EQ("setitimer", setitimer(ITIMER_REAL, &soon, NULL), 0);
    sigsuspend(&before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    CHECK("alarm came", seen == 1 && order[0] == SIGALRM);
    alarm(100);
    CHECK_EQ("getitimer", getitimer(ITIMER_REAL, &old), 0);
    CHECK("what is left", old.it_value.tv_sec >= 99);
    CHECK_EQ("alarm replaces", alarm(0), 100);
    soon.it_value.tv_usec = 1000000;
    CHECK_ERRNO("bad microseconds", setitimer(ITIMER_REAL, &soon, NULL), EINVAL);
    CHECK_ERRNO("bad timer", setitimer(99, NULL, NULL), EINVAL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM, .sigev_value.sival_int = 77};
    CHECK_EQ("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    struct itimerspec spec = {{0, 0}, {0, 3000000}};
    seen = 0;
    sigprocmask(SIG_BLOCK, &alarm_only, &before);
    CHECK_EQ("timer_settime", timer_settime(timer, 0, &spec, NULL), 0);
    sigsuspend(&before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    CHECK("carries its value", seen == 1 && codes[0] == SI_TIMER && values[0] == 77);
    CHECK_EQ("timer_getoverrun", timer_getoverrun(timer), 0);
    CHECK_EQ("timer_delete", timer_delete(timer), 0);
    CHECK_ERRNO("timer_create bad clock", timer_create(99, &event, &timer), EINVAL);
    struct timespec a, b;
    CHECK_EQ("clock_gettime", clock_gettime(CLOCK_MONOTONIC, &a), 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK("time goes forward", b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
    CHECK_ERRNO("clock_gettime bad clock", clock_gettime(99, &a), EINVAL);
    CHECK_EQ("clock_getres", clock_getres(CLOCK_REALTIME, &a), 0);
    CHECK("nanoseconds", a.tv_sec == 0 && a.tv_nsec == 1);
    b = (struct timespec){0, 1000000000};
    CHECK_ERRNO("nanosleep bad time", nanosleep(&b, NULL), EINVAL);
    CHECK_EQ("clock_nanosleep in the past", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &(struct timespec){1, 0}, NULL), 0);
}

static void deaths(void)
{
    int status, fatal[] = {SIGSEGV, SIGABRT, SIGFPE, SIGPIPE, SIGXCPU, SIGRTMIN};
    for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++) {
        pid_t pid = fork();
        if (!pid) {
            signal(fatal[i], SIG_DFL);
            raise(fatal[i]);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        char name[32];
        snprintf(name, sizeof name, "signal %d kills", fatal[i]);
        CHECK(name, WIFSIGNALED(status) && WTERMSIG(status) == fatal[i]);
    }
    pid_t pid = fork();
    if (!pid) {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)8 = 1;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    CHECK("a real fault cannot be ignored", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    pid = fork();
    if (!pid) {
        volatile int zero = 0;
        _exit(7 / zero);
    }
    waitpid(pid, &status, 0);
    CHECK("division by zero", WIFSIGNALED(status) && WTERMSIG(status) == SIGFPE);
    signal(SIGPIPE, SIG_IGN);
    close(pipes[0]);
    CHECK_ERRNO("write without a reader", write(pipes[1], "x", 1), EPIPE);
}

static volatile int handled_by_first;

static void *signal_all(void *arg)
{
    (void)arg;
    /* Until it has come: the first thread may not have begun to wait. */
    while (!handled_by_first) {
        kill(getpid(), SIGUSR2);
        usleep(1000);
    }
    return NULL;
}

static pthread_t who;
static void note_thread(int signal)
{
    (void)signal;
    who = pthread_self();
}

/* A signal to a process goes to its first thread, if that one wants it, whoever sent it. */
static void process_directed(void)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = note_thread};
    sigaction(SIGUSR2, &action, NULL);
    int ends[2];
    char byte;
    for (int i = 0; i < 20; i++) {
        if (pipe(ends)) return;
        handled_by_first = 0;
        pthread_create(&thread, NULL, signal_all, NULL);
        errno = 0;
        /* Nobody writes: only the signal ends it. */
        long got = read(ends[0], &byte, 1);
        handled_by_first = 1;
        if (got != -1 || errno != EINTR || !pthread_equal(who, pthread_self())) {
            printf("not ok a read of the first thread's is interrupted: round %d\n", i);
            check_failures++;
            break;
        }
        pthread_join(thread, NULL);
        close(ends[0]);
        close(ends[1]);
    }
    CHECK("the first thread handles it", pthread_equal(who, pthread_self()));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    memset(&who, 0, sizeof who);
    sigset_t old;
    sigemptyset(&set);
    pthread_sigmask(SIG_SETMASK, NULL, &old);
    kill(getpid(), SIGUSR2);
    sigpending(&set);
    CHECK("blocked by all, it waits", sigismember(&set, SIGUSR2) == 1);
    sigdelset(&old, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    CHECK("and comes to who unblocks it", pthread_equal(who, pthread_self()));
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    actions();
    masks();
    realtime();
    stacks();
    contexts();
    restart();
    timers();
    process_directed();
    deaths();
    return finish();
}
