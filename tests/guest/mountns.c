/* Mount namespaces (mount_namespaces(7)): unshare(2), setns(2), pivot_root(2), and mounts in one of them only. */
#include "guest.h"
#include <sys/mount.h>
#include <sys/syscall.h>

static int private(void) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static int mounted(const char *path) {
    FILE *file = fopen("/proc/self/mountinfo", "r");
    char line[4096], at[1024];
    int found = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%*s %*s %*s %*s %1023s", at) == 1) found |= !strcmp(at, path);
    if (file) fclose(file);
    return found;
}

static int run(void (*body)(const char *), const char *argument) {
    pid_t pid = fork();
    if (pid == 0) {
        body(argument);
        _exit(failures);
    }
    int status = -1;
    return waitpid(pid, &status, 0) == pid && status == 0;
}

static void apart(const char *at) {
    CHECK("a namespace of its own", private());
    CHECK("a mount in it", mount("none", at, "tmpfs", 0, "size=64k") == 0);
    CHECK("is listed", mounted(at));
    int fd = open("inside/file", O_CREAT | O_RDWR, 0600);
    CHECK("a file in it", fd >= 0 && write(fd, "x", 1) == 1);
    CHECK("statfs", access("inside/file", F_OK) == 0);
    FAILS("busy with nothing below", umount2("nowhere", 0), ENOENT);
    CHECK("a bind", mkdir("other", 0700) == 0 && mount("inside", "other", NULL, MS_BIND, NULL) == 0);
    CHECK("shows the same", access("other/file", F_OK) == 0);
    CHECK("read-only", mount(NULL, "other", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
    FAILS("really", open("other/new", O_CREAT | O_RDWR, 0600), EROFS);
    CHECK("not the first", (fd = open("inside/new", O_CREAT | O_RDWR, 0600)) >= 0);
    CHECK("unmounted", umount2("other", 0) == 0 && umount2("inside", MNT_DETACH) == 0 && !mounted(at));
    CHECK("the place is gone", rmdir("other") == 0);
}

static void pivot(const char *at) {
    CHECK("a namespace to turn", private());
    FAILS("not what is no mount", syscall(SYS_pivot_root, at, at), EBUSY);
    CHECK("a new root", mount("none", at, "tmpfs", 0, "size=64k") == 0 && chdir(at) == 0);
    CHECK("a place for the old", mkdir("old", 0700) == 0 && mkdir("sub", 0700) == 0);
    FAILS("the old not outside", syscall(SYS_pivot_root, ".", "/"), EBUSY);
    FAILS("nor on a file's place", syscall(SYS_pivot_root, ".", "none"), ENOENT);
    CHECK("pivot_root", syscall(SYS_pivot_root, ".", "old") == 0);
    CHECK("the root is new", access("/sub", F_OK) == 0 && access("/proc/self", F_OK) == -1);
    CHECK("the old is below", access("/old/proc/self/mountinfo", F_OK) == 0);
    CHECK("detached", umount2("/old", MNT_DETACH) == 0 && access("/old/proc", F_OK) == -1);
    char cwd[64] = "";
    CHECK("where we are", chdir("/") == 0 && getcwd(cwd, sizeof cwd) && !strcmp(cwd, "/"));
}

/* As runc does. */
static void pivot_on_itself(const char *at) {
    CHECK("another to turn", private());
    CHECK("a root", mount("none", at, "tmpfs", 0, "size=64k") == 0 && chdir(at) == 0 && mkdir("here", 0700) == 0);
    int old = open("/", O_DIRECTORY | O_RDONLY);
    CHECK("pivot_root on itself", syscall(SYS_pivot_root, ".", ".") == 0);
    CHECK("to the old", fchdir(old) == 0);
    CHECK("a slave", mount("", ".", "", MS_SLAVE | MS_REC, NULL) == 0);
    CHECK("away with it", umount2(".", MNT_DETACH) == 0);
    CHECK("to the new", chdir("/") == 0 && access("/here", F_OK) == 0 && access("/proc/self", F_OK) == -1);
}

int main(void) {
    enter_scratch();
    char at[PATH_MAX];
    if (mkdir("inside", 0700) || !realpath("inside", at)) return 99;
    CHECK("apart", run(apart, at));
    CHECK("nothing of it outside", !mounted(at) && access("inside/file", F_OK) == -1);
    CHECK("pivot", run(pivot, at));
    CHECK("pivot on itself", run(pivot_on_itself, at));

    int go[2], ready[2];
    if (pipe(go) || pipe(ready)) return 99;
    pid_t child = syscall(SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        char byte;
        int held = mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("none", at, "tmpfs", 0, "size=64k") == 0;
        if (held) close(open("inside/theirs", O_CREAT | O_RDWR, 0600));
        if (write(ready[1], "x", 1) != 1) _exit(99);
        close(go[1]);
        if (read(go[0], &byte, 1)) _exit(99);
        _exit(!held);
    }
    char byte, path[PATH_MAX + 16];
    CHECK("clone with CLONE_NEWNS", child > 0 && read(ready[0], &byte, 1) == 1);
    snprintf(path, sizeof path, "/proc/%d/root", child);
    CHECK("its files by its root", chdir(path) == 0);
    snprintf(path, sizeof path, "%s/theirs", at + 1);
    CHECK("are its own", access(path, F_OK) == 0);
    if (chdir(at)) return 99;
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", child);
    int fd = open(path, O_RDONLY);
    struct stat own, its;
    CHECK("another namespace", stat("/proc/self/ns/mnt", &own) == 0 && fstat(fd, &its) == 0 && own.st_ino != its.st_ino);
    pid_t enters = fork();
    if (enters == 0) {
        char file[PATH_MAX + 16];
        snprintf(file, sizeof file, "%s/theirs", at);
        if (setns(fd, CLONE_NEWNS)) _exit(1);
        _exit(access(file, F_OK) ? 2 : 0);
    }
    int status = -1;
    CHECK("setns", waitpid(enters, &status, 0) == enters && status == 0);
    FAILS("setns with another kind", setns(fd, CLONE_NEWPID), EINVAL);
    FAILS("setns with a file", setns(go[0], 0), EINVAL);
    close(go[1]);
    CHECK("it ends", waitpid(child, &status, 0) == child && status == 0);
    if (chdir("/")) return 99;
    CHECK("the place is free", rmdir(at) == 0);
    leave_scratch();
    return done();
}
