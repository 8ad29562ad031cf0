/* Buffers of calls at the edges of memory: for every pointer of every call that a platform may copy for, in front of, across
 * and behind the last page, in a page that cannot be written, and nowhere. What each call answers is in the name of the
 * assertion, so that both runs must agree; it must answer the same however often it is made in a row. MARSHAL_REPEAT
 * says how often. */
#include "guest.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/xattr.h>

#define PAGE 4096L
enum edge { INSIDE, ENDS, CROSSES, BEYOND, READ_ONLY, NOWHERE, KERNEL, EDGES };
static const char *const edges[] = {"inside", "up to the end", "across the end", "behind the end",
                                    "in a read-only page", "at null", "in the kernel's half"};

static char *arena, *read_only;
static int file, directory, pair[2], epoll_fd, repeat = 24;
static long calls, unstable, spilled;

/* Where a buffer of `len` bytes lies. With contents those are there, as far as there is memory. */
static void *place(enum edge edge, const void *bytes, long len) {
    char *end = arena + 2 * PAGE, *at;
    switch (edge) {
    case INSIDE: at = arena + 100; break;
    case ENDS: at = end - len; break;
    case CROSSES: at = end - (len + 1) / 2; break;
    case BEYOND: at = end; break;
    case READ_ONLY: at = read_only + 64; break;
    case NOWHERE: return NULL;
    default: return (void *)0xffff800000001000;
    }
    if (edge == READ_ONLY) mprotect(read_only, 3 * PAGE, PROT_READ | PROT_WRITE);
    if (edge == INSIDE) at[-1] = at[len] = 77;
    for (long i = 0; i < len && (edge == READ_ONLY || at + i < end); i++) at[i] = bytes ? ((const char *)bytes)[i] : 0;
    if (edge == READ_ONLY) mprotect(read_only, 3 * PAGE, PROT_READ);
    return at;
}

typedef struct { const void *bytes; long len; } Buffer;

/* A call of up to five arguments; those that point to a buffer have its length in `buffers`. */
typedef struct {
    const char *name;
    long nr, args[5];
    Buffer buffers[5];
} Call;

static void undo(const Call *call, long result) {
    if (result >= 0 && (call->nr == SYS_open || call->nr == SYS_openat)) close(result);
    if (result == 0 && (call->nr == SYS_mkdir || call->nr == SYS_mkdirat)) rmdir("made");
    if (result > 0 && (call->nr == SYS_write || call->nr == SYS_writev || call->nr == SYS_sendto || call->nr == SYS_sendmsg)) {
        char sink[8192];
        lseek(file, 0, SEEK_SET);
        recv(pair[0], sink, sizeof sink, MSG_DONTWAIT);
    }
    if (result == 0 && call->nr == SYS_epoll_ctl) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, pair[1], NULL);
}

static void prepare(const Call *call) {
    if (call->nr == SYS_recvfrom || call->nr == SYS_recvmsg) {
        char sink[64];
        while (recv(pair[1], sink, sizeof sink, MSG_DONTWAIT) > 0) {}
        send(pair[0], "abcdefgh", 8, 0);
    }
    if (call->nr == SYS_read || call->nr == SYS_readv) lseek(file, 0, SEEK_SET);
    if (call->nr == SYS_getdents64) lseek(directory, 0, SEEK_SET);
}

static void make(const Call *call, int varied, enum edge edge) {
    long first = 0, pipe_pair[2] = {-1, -1};
    for (int turn = 0; turn < repeat; turn++) {
        long args[5];
        char *inside = NULL;
        long len = 0;
        prepare(call);
        for (int i = 0; i < 5; i++) {
            args[i] = call->args[i];
            if (!call->buffers[i].len) continue;
            /* Those that are not varied are elsewhere. */
            static char others[5][8192];
            if (i == varied) {
                args[i] = (long)place(edge, call->buffers[i].bytes, call->buffers[i].len);
                if (edge == INSIDE) inside = (char *)args[i], len = call->buffers[i].len;
            } else {
                memset(others[i], 0, sizeof others[i]);
                if (call->buffers[i].bytes) memcpy(others[i], call->buffers[i].bytes, call->buffers[i].len);
                args[i] = (long)others[i];
            }
        }
        errno = 0;
        long result = syscall(call->nr, args[0], args[1], args[2], args[3], args[4]);
        calls++;
        if (result >= 0 && (call->nr == SYS_pipe || call->nr == SYS_pipe2)) {
            memcpy(pipe_pair, (void *)args[0], 8);
            close((int)pipe_pair[0]), close((int)(pipe_pair[0] >> 32));
        }
        undo(call, result);
        if (call->nr == SYS_open || call->nr == SYS_openat) result = result < 0 ? result : 0;
        result = result < 0 ? -errno : result;
        if (inside && (inside[-1] != 77 || inside[len] != 77)) spilled++;
        if (turn == 0) first = result;
        unstable += result != first;
    }
    char name[160];
    const char *what = first < 0 ? strerrorname_np((int)-first) : "";
    snprintf(name, sizeof name, "%s, argument %d %s: %ld %s", call->name, varied + 1, edges[edge], first < 0 ? -1 : first, what);
    say("ok", name, 0);
}

#define TEXT(s) {s, sizeof s}
#define OUT(n) {NULL, n}
#define SET {&set, 8}

int main(void) {
    const char *asked = getenv("MARSHAL_REPEAT");
    if (asked) repeat = atoi(asked);
    enter_scratch();
    arena = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    read_only = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(arena + 2 * PAGE, PAGE, PROT_NONE);
    file = open("file", O_CREAT | O_RDWR, 0600);
    mkdir("dir", 0700);
    directory = open("dir", O_RDONLY | O_DIRECTORY);
    epoll_fd = epoll_create1(0);
    char zeros[8192] = {0};
    CHECK("a file", write(file, zeros, sizeof zeros) == sizeof zeros && !symlink("file", "link"));
    CHECK("sockets", !socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    struct epoll_event event = {.events = EPOLLOUT};
    struct pollfd polled = {.fd = file, .events = POLLIN};
    unsigned long set = 1 << 9;
    struct sigaction act = {.sa_handler = SIG_DFL};
    struct timespec times[2] = {{1, 0}, {2, 0}};
    struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "nobody"};
    struct rlimit limit = {1 << 20, RLIM_INFINITY};
    static char data[4096];
    struct iovec vector = {data, 300};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    int one = 1;
    const Call all[] = {
        {"read", SYS_read, {file, 0, 4000}, {{0}, OUT(4000)}},
        {"write", SYS_write, {file, 0, 4000}, {{0}, OUT(4000)}},
        {"pread64", SYS_pread64, {file, 0, 6000, 10}, {{0}, OUT(6000)}},
        {"pwrite64", SYS_pwrite64, {file, 0, 700, 10}, {{0}, OUT(700)}},
        {"readv", SYS_readv, {file, 0, 1}, {{0}, {&vector, sizeof vector}}},
        {"writev", SYS_writev, {file, 0, 1}, {{0}, {&vector, sizeof vector}}},
        {"sendto", SYS_sendto, {pair[1], 0, 40, MSG_DONTWAIT}, {{0}, OUT(40)}},
        {"recvfrom", SYS_recvfrom, {pair[1], 0, 40, MSG_DONTWAIT}, {{0}, OUT(40)}},
        {"sendmsg", SYS_sendmsg, {pair[1], 0, MSG_DONTWAIT}, {{0}, {&message, sizeof message}}},
        {"recvmsg", SYS_recvmsg, {pair[1], 0, MSG_DONTWAIT}, {{0}, {&message, sizeof message}}},
        {"connect", SYS_connect, {pair[0], 0, sizeof nobody}, {{0}, {&nobody, sizeof nobody}}},
        {"setsockopt", SYS_setsockopt, {pair[0], SOL_SOCKET, SO_PASSCRED, 0, 4}, {{0}, {0}, {0}, {&one, 4}}},
        {"open", SYS_open, {0, O_RDONLY}, {TEXT("file")}},
        {"openat", SYS_openat, {AT_FDCWD, 0, O_RDONLY}, {{0}, TEXT("file")}},
        {"stat", SYS_stat, {0}, {TEXT("file"), OUT(sizeof(struct stat))}},
        {"lstat", SYS_lstat, {0}, {TEXT("link"), OUT(sizeof(struct stat))}},
        {"fstat", SYS_fstat, {file}, {{0}, OUT(sizeof(struct stat))}},
        {"newfstatat", SYS_newfstatat, {AT_FDCWD}, {{0}, TEXT("no such file"), OUT(sizeof(struct stat))}},
        {"statx", SYS_statx, {AT_FDCWD, 0, 0, STATX_BASIC_STATS}, {{0}, TEXT("file"), {0}, {0}, OUT(256)}},
        {"statfs", SYS_statfs, {0}, {TEXT("."), OUT(sizeof(struct statfs))}},
        {"fstatfs", SYS_fstatfs, {file}, {{0}, OUT(sizeof(struct statfs))}},
        {"access", SYS_access, {0, R_OK}, {TEXT("file")}},
        {"faccessat", SYS_faccessat, {AT_FDCWD, 0, R_OK}, {{0}, TEXT("none")}},
        {"readlink", SYS_readlink, {0, 0, 60}, {TEXT("link"), OUT(60)}},
        {"readlinkat", SYS_readlinkat, {AT_FDCWD, 0, 0, 60}, {{0}, TEXT("file"), OUT(60)}},
        {"getdents64", SYS_getdents64, {directory, 0, 200}, {{0}, OUT(200)}},
        {"chdir", SYS_chdir, {0}, {TEXT(".")}},
        {"mkdir", SYS_mkdir, {0, 0700}, {TEXT("made")}},
        {"rmdir", SYS_rmdir, {0}, {TEXT("none")}},
        {"unlink", SYS_unlink, {0}, {TEXT("none")}},
        {"unlinkat", SYS_unlinkat, {AT_FDCWD, 0, AT_REMOVEDIR}, {{0}, TEXT("file")}},
        {"chmod", SYS_chmod, {0, 0600}, {TEXT("file")}},
        {"utimensat", SYS_utimensat, {AT_FDCWD}, {{0}, TEXT("file"), {times, sizeof times}}},
        {"lgetxattr", SYS_lgetxattr, {0, 0, 0, 20}, {TEXT("link"), TEXT("user.none"), OUT(20)}},
        {"pipe", SYS_pipe, {0}, {OUT(8)}},
        {"pipe2", SYS_pipe2, {0, O_CLOEXEC}, {OUT(8)}},
        {"poll", SYS_poll, {0, 1, 0}, {{&polled, sizeof polled}}},
        {"ppoll", SYS_ppoll, {0, 1, 0}, {{&polled, sizeof polled}, {0}, {times, sizeof *times}}},
        {"epoll_ctl", SYS_epoll_ctl, {epoll_fd, EPOLL_CTL_ADD, pair[1]}, {{0}, {0}, {0}, {&event, sizeof event}}},
        {"epoll_wait", SYS_epoll_wait, {epoll_fd, 0, 3, 0}, {{0}, OUT(3 * sizeof event)}},
        {"rt_sigaction", SYS_rt_sigaction, {SIGUSR2, 0, 0, 8}, {{0}, {&act, 32}, OUT(32)}},
        {"rt_sigprocmask", SYS_rt_sigprocmask, {SIG_BLOCK, 0, 0, 8}, {{0}, SET, OUT(8)}},
        {"getrlimit", SYS_getrlimit, {RLIMIT_CORE}, {{0}, OUT(16)}},
        {"prlimit64", SYS_prlimit64, {0, RLIMIT_STACK}, {{0}, {0}, {0}, OUT(16)}},
        {"prlimit64 of a new limit", SYS_prlimit64, {0, RLIMIT_RTTIME}, {{0}, {0}, {&limit, 16}}},
        {"getrusage", SYS_getrusage, {RUSAGE_SELF}, {{0}, OUT(144)}},
        {"uname", SYS_uname, {0}, {OUT(sizeof(struct utsname))}},
        {"getrandom", SYS_getrandom, {0, 200, 0}, {OUT(200)}},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        for (int varied = 0; varied < 5; varied++)
            for (int edge = 0; all[i].buffers[varied].len && edge < EDGES; edge++) make(&all[i], varied, edge);
    CHECK("each call answers the same every time", unstable == 0);
    CHECK("nothing is written beside a buffer", spilled == 0);
    CHECK("some are made", calls > 0);
    unlink("file"), unlink("link"), rmdir("dir");
    leave_scratch();
    return done();
}
