/*
 * What the host takes for a call that seccomp hands to another process and back: nothing is done between
 * SECCOMP_IOCTL_NOTIF_RECV and SECCOMP_IOCTL_NOTIF_SEND. A sandbox's call by notification cannot be faster.
 * Prints a line as micro.c does: "cold_call" and nanoseconds, the median of seven rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7
#define CALLS 5000
/* linux/seccomp.h of Debian 12 does not have these yet. */
#define WAKE_SAME_PROCESSOR _IOW('!', 4, unsigned long long)
#define WAIT_KILLABLE (1UL << 5)

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "notify: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

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

/* One descriptor by message, in either direction. */
static int pass(int socket, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (fd < 0) {
        check(recvmsg(socket, &message, 0) == 1, "recvmsg");
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
        return fd;
    }
    *header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    check(sendmsg(socket, &message, 0) == 1, "sendmsg");
    return fd;
}

static void caller(int socket)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    check(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE;
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    check(listener >= 0, "seccomp");
    pass(socket, listener);
    close(listener);
    char byte;
    check(read(socket, &byte, 1) == 1, "read");
    double times[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        for (int i = 0; i < CALLS; i++)
            syscall(SYS_getppid);
        times[round] = (now() - start) / CALLS;
    }
    qsort(times, ROUNDS, sizeof *times, by_value);
    printf("cold_call %.1f\n", times[ROUNDS / 2]);
    fflush(stdout);
    _exit(0);
}

int main(void)
{
    int sockets[2];
    check(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair");
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0)
        caller(sockets[1]);
    int listener = pass(sockets[0], -1), status;
    /* Before Linux 6.6 there is nothing to ask for, and the floor is higher. */
    ioctl(listener, WAKE_SAME_PROCESSOR, 1);
    check(write(sockets[0], "", 1) == 1, "write");
    for (int i = 0; i < ROUNDS * CALLS; i++) {
        struct seccomp_notif notif = {0};
        check(!ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notif), "recv");
        struct seccomp_notif_resp answer = {.id = notif.id, .val = 1};
        check(!ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer), "send");
    }
    check(waitpid(pid, &status, 0) == pid, "waitpid");
    return status != 0;
}
