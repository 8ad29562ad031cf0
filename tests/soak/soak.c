/*
 * A guest that does everything that makes kernel state and takes it away again, for as many seconds as
 * its argument says: processes, threads, files, signals, pipes, sockets, mappings, timers. Each round
 * leaves nothing behind, so whoever watches the Sentry from outside must see it flat. The last line says
 * how much was done.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t handled;
static long processes, files, signals_sent;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void count(int signal)
{
    (void)signal;
    handled++;
}

static pid_t start(int kind, const char *self)
{
    pid_t pid = kind % 2 ? vfork() : fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        if (kind < 2) _exit(kind);
        execl(self, self, "--child", (char *)NULL);
        _exit(127);
    }
    processes++;
    return pid;
}

static void run_processes(const char *self)
{
    for (int kind = 0; kind < 4; kind++) {
        int status;
        pid_t pid = start(kind, self);
        if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) die("wait");
        if (WEXITSTATUS(status) != (kind < 2 ? kind : 7)) die("status");
    }
}

static void *nothing(void *arg)
{
    return arg;
}

static void run_threads(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, nothing, NULL)) die("pthread_create");
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static void churn(long round)
{
    char directory[64], path[96], other[96], block[8192];
    memset(block, 'x', sizeof block);
    snprintf(directory, sizeof directory, "/tmp/soak.%ld", round);
    if (mkdir(directory, 0755)) die("mkdir");
    int watch = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(watch, directory, IN_ALL_EVENTS);
    for (int i = 0; i < 8; i++) {
        struct stat status;
        snprintf(path, sizeof path, "%s/file%ld.%d", directory, round, i);
        snprintf(other, sizeof other, "%s/renamed%ld.%d", directory, round, i);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
        if (fd < 0) die("open");
        if (write(fd, block, sizeof block) != sizeof block) die("write");
        char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED || *map != 'x') die("mmap");
        munmap(map, 4096);
        close(fd);
        if (rename(path, other) || symlink(other, path) || stat(path, &status)) die("rename");
        if (status.st_size != sizeof block) die("size");
        /* Names that are not there leave negative entries. */
        access("/tmp/soak.none", F_OK);
        if (unlink(path) || unlink(other)) die("unlink");
        files++;
    }
    close(watch);
    if (rmdir(directory)) die("rmdir");
    /* What lies in a lower layer is copied up, once. */
    snprintf(path, sizeof path, "/usr/share/none.%ld", round);
    access(path, F_OK);
}

static void run_signals(void)
{
    int ready[2];
    if (pipe(ready)) die("pipe");
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigprocmask(SIG_BLOCK, &set, NULL);
        if (write(ready[1], "r", 1) != 1) _exit(1);
        int got;
        sigwait(&set, &got);
        for (;;) pause();
    }
    processes++;
    char byte;
    if (read(ready[0], &byte, 1) != 1) die("ready");
    for (int i = 0; i < 8; i++) {
        union sigval value = {.sival_int = i};
        kill(pid, SIGCHLD);
        sigqueue(pid, SIGCHLD, value);
        raise(SIGUSR1);
        signals_sent += 3;
    }
    kill(pid, SIGTERM);
    kill(pid, SIGSTOP);
    kill(pid, SIGCONT);
    kill(pid, SIGKILL);
    if (waitpid(pid, NULL, 0) != pid) die("wait");
    close(ready[0]);
    close(ready[1]);
}

static void run_descriptors(void)
{
    int pair[2], events = eventfd(1, 0), poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event event = {.events = EPOLLIN};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) die("socketpair");
    if (events < 0 || poll < 0 || timer < 0) die("descriptors");
    struct itimerspec soon = {.it_value = {0, 1000000}};
    timerfd_settime(timer, 0, &soon, NULL);
    epoll_ctl(poll, EPOLL_CTL_ADD, events, &event);
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
    if (epoll_wait(poll, &event, 1, 1000) != 1) die("epoll");
    /* A descriptor in flight, dropped with its socket. */
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'b';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &events, sizeof(int));
    if (sendmsg(pair[0], &message, 0) != 1) die("sendmsg");
    close(pair[0]);
    close(pair[1]);
    close(events);
    close(poll);
    close(timer);
}

static void run_memory(void)
{
    char *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("mmap");
    memset(memory, 1, 1 << 20);
    mprotect(memory + 4096, 4096, PROT_NONE);
    char *moved = mremap(memory + 8192, 65536, 131072, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) die("mremap");
    munmap(moved, 131072);
    munmap(memory, 1 << 20);
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    if (!strcmp(argv[1], "--child")) return 7;
    signal(SIGUSR1, count);
    time_t end = time(NULL) + atol(argv[1]);
    for (long round = 0; time(NULL) < end; round++) {
        run_processes("/proc/self/exe");
        run_threads();
        /* Few names, so that caches of names fill at once. */
        churn(round % 16);
        run_signals();
        run_descriptors();
        run_memory();
        /* Room for whoever else runs on this machine. */
        usleep(50000);
    }
    printf("%ld processes, %ld files, %ld signals\n", processes, files, signals_sent);
    return 0;
}
