/*
 * Random system calls, to be run in a sandbox and nowhere else: it makes any call with any arguments, and kills
 * every process it can see between two rounds. It refuses to run as anything but the first process of a kernel
 * that calls itself `rampart`.
 *
 *   calls SEED ROUNDS [verbose]
 *
 * A round is a child that makes some calls, each with arguments that are likely to get past the first check:
 * small numbers, descriptors, flags, pointers to a shared arena of paths and structures, and now and then
 * anything. What happens follows from SEED, as far as a kernel is deterministic. Prints `ok` at the end: the
 * kernel is still there, and its first process has come to no harm.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARENA ((char *)0x10000000)
#define ARENA_LEN 0x10000
#define CALLS 40
#define ROUND_MS 400

static uint64_t state;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

static uint64_t below(uint64_t bound) { return next() % bound; }

static const char *const PATHS[] = {
    "a", "b", "d", "d/e", "/tmp/x", "/", ".", "..", "", "/proc/self/fd/3", "/proc/self/maps", "/proc/self/mem",
    "/proc/self/ns/net", "/proc/1/root", "/proc/self/status", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx",
    "/dev/pts/0", "/sys", "/nowhere/x", "/proc/sys/kernel/hostname", "/proc/self/task", "loop", "fifo", "sock",
    "/proc/self/exe", "/calls", "user.x", "tmpfs", "proc", "overlay", "lowerdir=/,upperdir=/tmp,workdir=/tmp",
};
#define PATH_COUNT (sizeof PATHS / sizeof *PATHS)

/* Pages of paths, then pages of words. */
static void fill_arena(void) {
    memset(ARENA, 0, ARENA_LEN);
    for (size_t i = 0; i < PATH_COUNT; i++) strcpy(ARENA + i * 64, PATHS[i]);
    uint64_t *words = (uint64_t *)(ARENA + 0x4000);
    for (int i = 0; i < 0x1000; i++) {
        switch (below(6)) {
        case 0: words[i] = below(8); break;
        case 1: words[i] = (uint64_t)ARENA + 0x4000 + below(0x8000); break;
        case 2: words[i] = below(8) | below(64) << 32; break;
        case 3: words[i] = below(4096); break;
        case 4: words[i] = below(50) ? 0 : next(); break;
        default: words[i] = 0;
        }
    }
}

static uint64_t argument(void) {
    switch (below(16)) {
    case 0: case 1: return below(10);
    case 2: case 3: return 3 + below(12); /* descriptors */
    case 4: return (uint64_t)ARENA + below(PATH_COUNT) * 64;
    case 5: return (uint64_t)ARENA + below(PATH_COUNT) * 64;
    case 6: case 7: case 8: return (uint64_t)ARENA + 0x4000 + below(0x1000) * 8;
    case 9: return 1ull << below(22);
    case 10: return below(0x10000);
    case 11: return AT_FDCWD;
    case 12: return 0;
    case 13: return (uint64_t)ARENA + ARENA_LEN - below(32); /* runs into nothing */
    case 14: return -below(20);
    default: return below(4) ? (uint64_t)INT32_MAX - below(3) : next();
    }
}

/* Calls that only end the round. */
static int dull(long nr) {
    return nr == SYS_exit || nr == SYS_exit_group || nr == SYS_pause || nr == SYS_rt_sigreturn;
}

static void prepare(int verbose) {
    struct rlimit space = {512 << 20, 512 << 20}, size = {16 << 20, 16 << 20}, processes = {200, 200};
    setrlimit(RLIMIT_AS, &space);
    setrlimit(RLIMIT_FSIZE, &size);
    setrlimit(RLIMIT_NPROC, &processes);
    alarm(2);
    char folder[32] = "/tmp/round.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder)) _exit(1);
    int pair[2], null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < (verbose ? 2 : 3); fd++) dup2(null, fd);
    close(null);
    close(open("a", O_CREAT | O_RDWR, 0644));
    mkdir("d", 0755);
    symlink("loop", "loop");
    mkfifo("fifo", 0644);
    open("a", O_RDWR | O_NONBLOCK);
    open("d", O_RDONLY | O_DIRECTORY);
    pipe2(pair, O_NONBLOCK);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    open("/dev/ptmx", O_RDWR | O_NONBLOCK | O_NOCTTY);
    syscall(SYS_memfd_create, "m", 2);
    syscall(SYS_epoll_create1, 0);
    syscall(SYS_eventfd2, 0, O_NONBLOCK);
    syscall(SYS_timerfd_create, 1, O_NONBLOCK);
    syscall(SYS_inotify_init1, O_NONBLOCK);
}

static void round_of(int verbose) {
    for (int i = 0; i < CALLS; i++) {
        /* There is nothing between 334 and 424. */
        long nr = below(335 + 39);
        if (nr > 334) nr += 424 - 335;
        uint64_t a[6];
        for (int k = 0; k < 6; k++) a[k] = argument();
        if (dull(nr)) continue;
        if (verbose) {
            dprintf(2, "[%d] %ld(%lx, %lx, %lx, %lx, %lx, %lx)\n", (int)syscall(SYS_getpid), nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
        syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    _exit(0);
}

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Ends everything but us. A child may have changed its parent, group and session: nothing less would do. */
static void clear(void) {
    long until = now_ms() + 20000;
    for (;;) {
        kill(-1, SIGKILL);
        pid_t gone = waitpid(-1, NULL, WNOHANG | __WALL);
        if (gone < 0 && errno == ECHILD) return;
        if (now_ms() > until) {
            printf("not ok: processes that do not die\n");
            exit(3);
        }
        if (!gone) usleep(1000);
    }
}

int main(int argc, char **argv) {
    struct utsname name;
    if (argc < 3 || uname(&name) || !strstr(name.release, "rampart") || getpid() != 1) {
        fprintf(stderr, "calls: only in a sandbox, as calls SEED ROUNDS\n");
        return 2;
    }
    int verbose = argc > 3;
    mmap(ARENA, ARENA_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int round = 0; round < atoi(argv[2]); round++) {
        state = strtoull(argv[1], NULL, 10) * 1000003 + round + 1;
        for (int i = 0; i < 8; i++) next();
        fill_arena();
        if (verbose) dprintf(2, "round %d\n", round);
        pid_t child = fork();
        if (child == 0) {
            prepare(verbose);
            round_of(verbose);
        }
        long until = now_ms() + ROUND_MS;
        while (waitpid(child, NULL, WNOHANG) == 0 && now_ms() < until) usleep(500);
        clear();
    }
    printf("ok\n");
    return 0;
}
