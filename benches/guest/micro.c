/*
 * The guest micro-benchmark: one static program, run natively and in sandboxes. Prints a line an
 * operation: its name and the nanoseconds it took, the median of several rounds. Each round's time is
 * taken with CLOCK_MONOTONIC around a loop long enough to hide the clock itself.
 *
 * Usage: micro [-q] [NAME...]   (-q: fewer rounds, for a smoke test)
 *        micro --share BEGIN END  (computes between two times, in seconds since 1970; prints how much)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static const char *self;
static int file_fd, pipe_fds[2];
static char buffer[65536];

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void null_call(long n)
{
    while (n--)
        syscall(SYS_getppid);
}

static void clock_call(long n)
{
    struct timespec ts;
    while (n--)
        clock_gettime(CLOCK_MONOTONIC, &ts);
}

static void fstat_call(long n)
{
    struct stat st;
    while (n--)
        fstat(file_fd, &st);
}

static void lseek_call(long n)
{
    while (n--)
        lseek(file_fd, 0, SEEK_SET);
}

static void pread_4k(long n)
{
    while (n--)
        check(pread(file_fd, buffer, PAGE, 0) == PAGE, "pread");
}

static void pwrite_4k(long n)
{
    while (n--)
        check(pwrite(file_fd, buffer, PAGE, 0) == PAGE, "pwrite");
}

static void stat_call(long n)
{
    struct stat st;
    while (n--)
        check(stat("/etc/passwd", &st) == 0, "stat");
}

static void open_close(long n)
{
    while (n--) {
        int fd = open("/etc/passwd", O_RDONLY);
        check(fd >= 0, "open");
        close(fd);
    }
}

static void create_unlink(long n)
{
    while (n--) {
        int fd = open("micro.tmp", O_CREAT | O_WRONLY, 0600);
        check(fd >= 0, "create");
        close(fd);
        unlink("micro.tmp");
    }
}

static void pipe_write_read(long n)
{
    char byte = 0;
    while (n--) {
        check(write(pipe_fds[1], &byte, 1) == 1, "write");
        check(read(pipe_fds[0], &byte, 1) == 1, "read");
    }
}

static void ping_pong(long n, int a[2], int b[2])
{
    char byte = 0;
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (!pid) {
        for (long i = 0; i < n; i++)
            if (read(a[0], &byte, 1) != 1 || write(b[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    for (long i = 0; i < n; i++)
        check(write(a[1], &byte, 1) == 1 && read(b[0], &byte, 1) == 1, "ping-pong");
    waitpid(pid, NULL, 0);
}

static void pipe_ping_pong(long n)
{
    int a[2], b[2];
    check(!pipe(a) && !pipe(b), "pipe");
    ping_pong(n, a, b);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
}

static void page_fault(long n)
{
    while (n > 0) {
        long pages = n > 1024 ? 1024 : n;
        char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "mmap");
        madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
        for (long i = 0; i < pages; i++)
            p[i * PAGE] = 1;
        munmap(p, pages * PAGE);
        n -= pages;
    }
}

static void mmap_touch_munmap(long n)
{
    while (n--) {
        char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "mmap");
        for (int i = 0; i < 16; i++)
            p[i * PAGE] = 1;
        munmap(p, 65536);
    }
}

static void fork_exit(long n)
{
    while (n--) {
        pid_t pid = fork();
        check(pid >= 0, "fork");
        if (!pid)
            _exit(0);
        waitpid(pid, NULL, 0);
    }
}

static void fork_exec(long n)
{
    while (n--) {
        pid_t pid = fork();
        check(pid >= 0, "fork");
        if (!pid) {
            execl(self, self, "--nothing", NULL);
            _exit(1);
        }
        int status;
        check(waitpid(pid, &status, 0) == pid && status == 0, "exec");
    }
}

static void spawn_wait(long n)
{
    char *argv[] = {(char *)self, "--nothing", NULL}, *env[] = {NULL};
    while (n--) {
        pid_t pid;
        int status;
        check(posix_spawn(&pid, self, NULL, NULL, argv, env) == 0, "posix_spawn");
        check(waitpid(pid, &status, 0) == pid && status == 0, "posix_spawn");
    }
}

static void *nothing(void *unused)
{
    return unused;
}

static void thread_join(long n)
{
    while (n--) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, nothing, NULL) == 0, "pthread_create");
        pthread_join(thread, NULL);
    }
}

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn;

static void take_turns(int mine, long n)
{
    while (n--) {
        pthread_mutex_lock(&turn_lock);
        while (turn != mine)
            pthread_cond_wait(&turn_changed, &turn_lock);
        turn = !mine;
        pthread_cond_signal(&turn_changed);
        pthread_mutex_unlock(&turn_lock);
    }
}

static void *other_turns(void *n)
{
    take_turns(1, (long)n);
    return NULL;
}

static void futex_ping_pong(long n)
{
    pthread_t thread;
    turn = 0;
    check(pthread_create(&thread, NULL, other_turns, (void *)n) == 0, "pthread_create");
    take_turns(0, n);
    pthread_join(thread, NULL);
}

static volatile unsigned long sink;

static void compute(long n)
{
    unsigned long x = 88172645463325252ul;
    while (n--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
}

static const struct {
    const char *name;
    void (*run)(long);
    long count;
} operations[] = {
    {"null_call", null_call, 2000},
    {"clock_gettime", clock_call, 100000},
    {"fstat", fstat_call, 2000},
    {"lseek", lseek_call, 2000},
    {"pread_4k", pread_4k, 2000},
    {"pwrite_4k", pwrite_4k, 2000},
    {"stat", stat_call, 1000},
    {"open_close", open_close, 500},
    {"create_unlink", create_unlink, 200},
    {"pipe_write_read", pipe_write_read, 1000},
    {"pipe_ping_pong", pipe_ping_pong, 500},
    {"page_fault", page_fault, 4096},
    {"mmap_touch_munmap_64k", mmap_touch_munmap, 200},
    {"fork_exit", fork_exit, 50},
    {"fork_exec", fork_exec, 20},
    {"posix_spawn", spawn_wait, 20},
    {"pthread_create_join", thread_join, 100},
    {"futex_ping_pong", futex_ping_pong, 1000},
    {"compute", compute, 10000000},
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void share(double begin, double end)
{
    struct timespec ts;
    long units = 0;
    do
        clock_gettime(CLOCK_REALTIME, &ts);
    while (ts.tv_sec + ts.tv_nsec / 1e9 < begin);
    for (; ts.tv_sec + ts.tv_nsec / 1e9 < end; units++) {
        compute(100000);
        clock_gettime(CLOCK_REALTIME, &ts);
    }
    printf("%ld\n", units);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--share")) {
        share(atof(argv[2]), atof(argv[3]));
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "--nothing"))
        return 0;
    int rounds = 7, first = 1;
    if (argc > 1 && !strcmp(argv[1], "-q")) {
        rounds = 1;
        first = 2;
    }
    self = "/proc/self/exe";
    char exe[4096] = "";
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) > 0)
        self = exe;
    file_fd = open("micro.data", O_CREAT | O_RDWR | O_TRUNC, 0600);
    check(file_fd >= 0 && write(file_fd, buffer, sizeof buffer) == sizeof buffer, "micro.data");
    check(!pipe(pipe_fds), "pipe");
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++) {
        int wanted = first >= argc;
        for (int a = first; a < argc; a++)
            wanted |= !strcmp(argv[a], operations[i].name);
        if (!wanted)
            continue;
        double times[16];
        operations[i].run(operations[i].count / 10 + 1);
        for (int r = 0; r < rounds; r++) {
            double start = now();
            operations[i].run(operations[i].count);
            times[r] = (now() - start) / operations[i].count;
        }
        qsort(times, rounds, sizeof *times, by_value);
        printf("%s %.1f\n", operations[i].name, times[rounds / 2]);
        fflush(stdout);
    }
    unlink("micro.data");
    return 0;
}
