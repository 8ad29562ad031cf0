/* Clocks, sleeping, interval and POSIX timers, processor time. */
#include "guest.h"
#include <sys/times.h>
static volatile sig_atomic_t alarms, profs, virtuals, value_seen, most_overrun;
static void on_alarm(int signal) { alarms++; (void)signal; }
static void on_prof(int signal) { profs++; (void)signal; }
static void on_virtual(int signal) { virtuals++; (void)signal; }
static void on_timer(int signal, siginfo_t *info, void *context) {
    value_seen = info->si_value.sival_int;
    if (info->si_overrun > most_overrun) most_overrun = info->si_overrun;
    alarms += info->si_code == SI_TIMER;
    (void)signal, (void)context;
}
static void handle(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}
static double now(clockid_t clock) {
    struct timespec ts = {0};
    return clock_gettime(clock, &ts) ? -1 : ts.tv_sec + ts.tv_nsec / 1e9;
}
static void burn(double seconds) {
    double end = now(CLOCK_PROCESS_CPUTIME_ID) + seconds, late = now(CLOCK_MONOTONIC) + 5;
    /* Mostly in user mode. */
    while (now(CLOCK_PROCESS_CPUTIME_ID) < end && now(CLOCK_MONOTONIC) < late)
        for (volatile int i = 0; i < 300000; i++) {}
}
static void clocks(void) {
    struct timespec ts;
    int good = 1;
    clockid_t all[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
        CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        good &= !syscall(SYS_clock_gettime, all[i], &ts) && !syscall(SYS_clock_getres, all[i], &ts);
    CHECK("all clocks tell", good);
    FAILS("no such clock", syscall(SYS_clock_gettime, 10, &ts), EINVAL);
    FAILS("no such clock either", syscall(SYS_clock_gettime, 99, &ts), EINVAL);
    FAILS("nowhere to tell", syscall(SYS_clock_gettime, CLOCK_REALTIME, NULL), EFAULT);
    CHECK("resolution is asked of nobody", syscall(SYS_clock_getres, CLOCK_REALTIME, NULL) == 0);
    double a = now(CLOCK_MONOTONIC), b = now(CLOCK_MONOTONIC);
    CHECK("monotonic", a > 0 && b >= a && b < a + 5);
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
    double c = ts.tv_sec + ts.tv_nsec / 1e9, d = now(CLOCK_MONOTONIC);
    CHECK("the call and the vDSO agree", c >= b && d >= c);
    CHECK("time agrees with its clock", labs(time(NULL) - (long)now(CLOCK_REALTIME)) <= 1);
    struct timeval tv;
    CHECK("gettimeofday agrees", !gettimeofday(&tv, NULL) && labs(tv.tv_sec - time(NULL)) <= 1);
    clockid_t own;
    CHECK("the clock of a process", !clock_getcpuclockid(getpid(), &own) && now(own) >= 0);
    FAILS("the clock of nobody", clock_gettime((~4000000u) << 3 | 2, &ts), EINVAL);
    FAILS("set another clock", clock_settime(CLOCK_MONOTONIC, &ts), EINVAL);
    struct timespec bad = {0, 1000000000};
    FAILS("set to no time", clock_settime(CLOCK_REALTIME, &bad), EINVAL);
}
static void sleeping(void) {
    struct timespec brief = {0, 20000000}, long_ = {30, 0}, rest = {0}, bad = {0, -1}, when;
    double start = now(CLOCK_MONOTONIC);
    CHECK("nanosleep", nanosleep(&brief, NULL) == 0 && now(CLOCK_MONOTONIC) - start >= 0.02);
    FAILS("sleep no time", nanosleep(&bad, NULL), EINVAL);
    FAILS("sleep from nowhere", syscall(SYS_nanosleep, NULL, NULL), EFAULT);
    CHECK("sleep on another clock", clock_nanosleep(CLOCK_REALTIME, 0, &brief, NULL) == 0);
    CHECK("no sleep on the thread's", clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &brief, NULL) == EINVAL);
    CHECK("no sleep on a coarse one", clock_nanosleep(CLOCK_MONOTONIC_COARSE, 0, &brief, NULL) == EOPNOTSUPP);
    clock_gettime(CLOCK_MONOTONIC, &when);
    when.tv_nsec += 20000000;
    if (when.tv_nsec >= 1000000000) when.tv_sec++, when.tv_nsec -= 1000000000;
    CHECK("sleep until", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == 0);
    CHECK("not again", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == 0);
    handle(SIGALRM, on_alarm, SA_RESTART);
    struct itimerval soon = {{0, 0}, {0, 30000}}, old;
    setitimer(ITIMER_REAL, &soon, NULL);
    FAILS("a handler ends a sleep even with SA_RESTART", nanosleep(&long_, &rest), EINTR);
    CHECK("the rest is told", rest.tv_sec == 29 && alarms == 1);
    /* Stopped and continued by a child, the sleep lasts as long as it was to. */
    start = now(CLOCK_MONOTONIC);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        usleep(30000);
        kill(parent, SIGURG);
        _exit(0);
    }
    struct timespec some = {0, 100000000};
    CHECK("an ignored signal does not", nanosleep(&some, NULL) == 0 && now(CLOCK_MONOTONIC) - start >= 0.1);
    waitpid(child, NULL, 0);
    CHECK("alarm tells what was left", alarm(100) == 0 && alarm(0) == 100 && alarm(0) == 0);
    CHECK("an idle timer shows nothing",
          !getitimer(ITIMER_REAL, &old) && !old.it_value.tv_sec && !old.it_value.tv_usec);
    FAILS("no such timer", setitimer(7, &soon, NULL), EINVAL);
    struct itimerval no = {{0, 0}, {0, 1000000}};
    FAILS("a timer of no time", setitimer(ITIMER_REAL, &no, NULL), EINVAL);
}
static void intervals(void) {
    struct itimerval often = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}}, was;
    alarms = 0;
    double start = now(CLOCK_MONOTONIC);
    setitimer(ITIMER_REAL, &often, NULL);
    while (alarms < 3 && now(CLOCK_MONOTONIC) < start + 5) pause();
    CHECK("an interval timer repeats", alarms >= 3 && now(CLOCK_MONOTONIC) - start >= 0.014);
    CHECK("what was set is told", !setitimer(ITIMER_REAL, &off, &was) && was.it_interval.tv_usec == 5000);
    handle(SIGPROF, on_prof, SA_RESTART);
    handle(SIGVTALRM, on_virtual, SA_RESTART);
    struct itimerval cpu = {{0, 20000}, {0, 20000}};
    setitimer(ITIMER_PROF, &cpu, NULL);
    setitimer(ITIMER_VIRTUAL, &cpu, NULL);
    usleep(100000);
    CHECK("sleep is no processor time", profs == 0 && virtuals == 0);
    burn(0.4);
    CHECK("profiling signals", profs > 0);
    CHECK("virtual signals", virtuals > 0);
    setitimer(ITIMER_PROF, &off, NULL);
    setitimer(ITIMER_VIRTUAL, &off, NULL);
}
static void posix(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    event.sigev_value.sival_int = 77;
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 1, &action, NULL);
    CHECK("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec soon = {{0, 0}, {0, 5000000}}, often = {{0, 1000000}, {0, 1000000}}, off = {0}, was;
    alarms = 0;
    double late = now(CLOCK_MONOTONIC) + 5;
    timer_settime(timer, 0, &soon, NULL);
    while (!alarms && now(CLOCK_MONOTONIC) < late) usleep(1000);
    CHECK("it sends its signal and value", alarms == 1 && value_seen == 77);
    CHECK("it is idle again", !timer_gettime(timer, &was) && !was.it_value.tv_sec && !was.it_value.tv_nsec);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, &old);
    alarms = 0;
    timer_settime(timer, 0, &often, NULL);
    usleep(50000);
    most_overrun = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    CHECK("missed expiries are counted", most_overrun >= 5);
    timer_settime(timer, 0, &off, &was);
    CHECK("its period was told", was.it_interval.tv_nsec == 1000000);
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    struct itimerspec past = {{0, 0}, ts};
    alarms = 0;
    timer_settime(timer, TIMER_ABSTIME, &past, NULL);
    usleep(20000);
    CHECK("a time that has passed expires", alarms == 1);
    struct itimerspec bad = {{0, 0}, {0, 1000000000}};
    FAILS("no time", timer_settime(timer, 0, &bad, NULL), EINVAL);
    CHECK("timer_delete", timer_delete(timer) == 0);
    int id = 4242, kernel_timer;
    FAILS("no such timer", syscall(SYS_timer_gettime, id, &was), EINVAL);
    struct sigevent wrong = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 1000};
    FAILS("no such signal", syscall(SYS_timer_create, CLOCK_MONOTONIC, &wrong, &kernel_timer), EINVAL);
    FAILS("no such clock", syscall(SYS_timer_create, 77, NULL, &kernel_timer), EINVAL);
    struct sigevent to = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    to._sigev_un._tid = 1 << 22;
    FAILS("no such thread", syscall(SYS_timer_create, CLOCK_MONOTONIC, &to, &kernel_timer), EINVAL);
    CHECK("on processor time", timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0);
    struct itimerspec used = {{0, 0}, {0, 20000000}};
    alarms = 0;
    timer_settime(timer, 0, &used, NULL);
    usleep(60000);
    CHECK("not yet", alarms == 0);
    burn(0.3);
    CHECK("now", alarms == 1);
    timer_delete(timer);
}
static void *burner(void *arg) {
    burn(0.3);
    return arg;
}
static void on_processor_time(void) {
    pthread_t thread;
    struct timespec some = {0, 100000000};
    double start = now(CLOCK_PROCESS_CPUTIME_ID);
    pthread_create(&thread, NULL, burner, NULL);
    CHECK("sleep while others use the processor", clock_nanosleep(CLOCK_PROCESS_CPUTIME_ID, 0, &some, NULL) == 0
          && now(CLOCK_PROCESS_CPUTIME_ID) - start > 0.0999);
    pthread_join(thread, NULL);
}
static void usage(void) {
    struct rusage use;
    struct tms tms;
    int status;
    CHECK("getrusage", !getrusage(RUSAGE_SELF, &use) && use.ru_utime.tv_sec + use.ru_utime.tv_usec > 0);
    CHECK("of the thread", !getrusage(RUSAGE_THREAD, &use));
    FAILS("of nobody", getrusage(9, &use), EINVAL);
    CHILD(status, burn(0.1));
    CHECK("of children", status == 0 && !getrusage(RUSAGE_CHILDREN, &use)
          && use.ru_utime.tv_usec + use.ru_stime.tv_usec > 0);
    CHECK("times", times(&tms) != -1 && tms.tms_utime + tms.tms_stime > 0);
    CHILD(status, {
        struct rlimit limit = {1, 2};
        signal(SIGXCPU, SIG_DFL);
        setrlimit(RLIMIT_CPU, &limit);
        double late = now(CLOCK_MONOTONIC) + 10;
        while (now(CLOCK_MONOTONIC) < late) {}
    });
    CHECK("the limit on processor time ends it", WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU);
}
int main(void) {
    clocks();
    sleeping();
    intervals();
    posix();
    on_processor_time();
    usage();
    return done();
}
