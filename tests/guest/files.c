/* open, read, write, seek, truncate, dup, fcntl, links, rename: open(2), lseek(2), rename(2), ... */
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static void opening(void)
{
    CHECK_ERRNO("open missing", open("none", O_RDONLY), ENOENT);
    CHECK_ERRNO("open empty path", open("", O_RDONLY), ENOENT);
    CHECK_ERRNO("open bad pointer", open((char *)1, O_RDONLY), EFAULT);
    int fd = open("f", O_CREAT | O_EXCL | O_RDWR, 0640);
    CHECK("create", fd >= 0);
    CHECK_ERRNO("create exclusive again", open("f", O_CREAT | O_EXCL | O_RDWR, 0640), EEXIST);
    CHECK_ERRNO("file as directory", open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERRNO("through a file", open("f/x", O_RDONLY), ENOTDIR);
    CHECK_ERRNO("trailing slash on a file", open("f/", O_RDONLY), ENOTDIR);
    CHECK_ERRNO("directory for writing", open(".", O_WRONLY), EISDIR);
    CHECK_ERRNO("create a directory path", open("new/", O_CREAT | O_WRONLY, 0600), EISDIR);
    char name[300];
    memset(name, 'a', sizeof name);
    name[299] = 0;
    CHECK_ERRNO("name too long", open(name, O_RDONLY), ENAMETOOLONG);
    char *path = malloc(PATH_MAX + 10);
    memset(path, '/', PATH_MAX + 9);
    path[PATH_MAX + 9] = 0;
    CHECK_ERRNO("path too long", open(path, O_RDONLY), ENAMETOOLONG);
    free(path);
    struct stat st;
    CHECK_EQ("fstat", fstat(fd, &st), 0);
    CHECK("mode after umask", (st.st_mode & 07777) == (0640 & ~022));
    CHECK("regular", S_ISREG(st.st_mode));
    CHECK_EQ("one link", st.st_nlink, 1);
    close(fd);
    CHECK_ERRNO("close twice", close(fd), EBADF);
    int tmp = open(".", O_TMPFILE | O_RDWR, 0600);
    CHECK("O_TMPFILE", tmp >= 0);
    CHECK_EQ("unnamed has no links", fstat(tmp, &st) ? -1 : (long)st.st_nlink, 0);
    close(tmp);
    int path_fd = open("f", O_PATH);
    char byte;
    CHECK_ERRNO("read from O_PATH", read(path_fd, &byte, 1), EBADF);
    CHECK_EQ("fstat O_PATH", fstat(path_fd, &st), 0);
    close(path_fd);
}

static void data(void)
{
    int fd = open("d", O_CREAT | O_RDWR, 0600);
    CHECK_EQ("write", write(fd, "hello", 5), 5);
    CHECK_EQ("offset follows", lseek(fd, 0, SEEK_CUR), 5);
    CHECK_EQ("pread", pread(fd, (char[9]){0}, 9, 1), 4);
    char buf[32] = "";
    CHECK_EQ("pread content", (pread(fd, buf, 5, 0), strcmp(buf, "hello")), 0);
    CHECK_ERRNO("pread negative offset", pread(fd, buf, 1, -1), EINVAL);
    CHECK_EQ("read at the end", read(fd, buf, 5), 0);
    CHECK_EQ("read nothing from NULL", read(fd, NULL, 0), 0);
    lseek(fd, 0, SEEK_SET);
    CHECK_ERRNO("read to NULL", read(fd, NULL, 5), EFAULT);
    CHECK_EQ("fault moves nothing", lseek(fd, 0, SEEK_CUR), 0);
    CHECK_ERRNO("seek before the start", lseek(fd, -1, SEEK_SET), EINVAL);
    CHECK_ERRNO("seek with a bad whence", lseek(fd, 0, 99), EINVAL);
    CHECK_EQ("seek past the end", lseek(fd, 100, SEEK_SET), 100);
    CHECK_EQ("write past the end", write(fd, "x", 1), 1);
    struct stat st;
    fstat(fd, &st);
    CHECK_EQ("hole counted in the size", st.st_size, 101);
    CHECK_EQ("hole reads as zeros", (pread(fd, buf, 1, 50), buf[0]), 0);
    CHECK_EQ("shrink", ftruncate(fd, 3), 0);
    CHECK_EQ("grow", ftruncate(fd, 10), 0);
    memset(buf, 'z', sizeof buf);
    CHECK_EQ("read after truncate", pread(fd, buf, 32, 0), 10);
    CHECK("grown part is zero", !memcmp(buf, "hel\0\0\0\0\0\0\0", 10));
    CHECK_ERRNO("truncate negative", ftruncate(fd, -1), EINVAL);
    struct iovec out[2] = {{"ab", 2}, {"cd", 2}};
    CHECK_EQ("pwritev", pwritev(fd, out, 2, 0), 4);
    char one[1], rest[8];
    struct iovec in[2] = {{one, 1}, {rest, 3}};
    CHECK_EQ("preadv", preadv(fd, in, 2, 0), 4);
    CHECK("vector order", one[0] == 'a' && !memcmp(rest, "bcd", 3));
    CHECK_ERRNO("too many vectors", readv(fd, in, 1025), EINVAL);
    CHECK_EQ("zero vectors", readv(fd, in, 0), 0);
    int append = open("d", O_WRONLY | O_APPEND);
    lseek(append, 0, SEEK_SET);
    CHECK_EQ("append", write(append, "end", 3), 3);
    fstat(fd, &st);
    CHECK_EQ("append went to the end", st.st_size, 13);
    CHECK_ERRNO("read a write-only file", read(append, buf, 1), EBADF);
    close(append);
    int read_only = open("d", O_RDONLY);
    CHECK_ERRNO("write a read-only file", write(read_only, "x", 1), EBADF);
    CHECK_ERRNO("truncate a read-only file", ftruncate(read_only, 0), EINVAL);
    close(read_only);
    close(open("d", O_WRONLY | O_TRUNC));
    fstat(fd, &st);
    CHECK_EQ("O_TRUNC", st.st_size, 0);
    CHECK_EQ("fallocate", fallocate(fd, 0, 0, 8192), 0);
    fstat(fd, &st);
    CHECK_EQ("fallocate grows", st.st_size, 8192);
    CHECK_EQ("fsync", fsync(fd), 0);
    CHECK_EQ("fdatasync", fdatasync(fd), 0);
    close(fd);
}

static void descriptors(void)
{
    int fd = open("d", O_RDWR);
    int copy = dup(fd);
    write(fd, "12345", 5);
    CHECK_EQ("dup shares the offset", lseek(copy, 0, SEEK_CUR), 5);
    CHECK_EQ("dup2 to itself", dup2(fd, fd), fd);
    CHECK_ERRNO("dup3 to itself", dup3(fd, fd, 0), EINVAL);
    CHECK_ERRNO("dup of nothing", dup(999), EBADF);
    CHECK_ERRNO("dup2 to a negative", dup2(fd, -1), EBADF);
    CHECK_EQ("dup3 cloexec", fcntl(dup3(fd, 200, O_CLOEXEC), F_GETFD), FD_CLOEXEC);
    CHECK_EQ("F_DUPFD takes the lowest", fcntl(fd, F_DUPFD, 150), 150);
    CHECK_EQ("F_DUPFD_CLOEXEC", fcntl(fcntl(fd, F_DUPFD_CLOEXEC, 160), F_GETFD), FD_CLOEXEC);
    CHECK_EQ("F_SETFD", fcntl(copy, F_SETFD, FD_CLOEXEC), 0);
    CHECK_EQ("cloexec is the descriptor's", fcntl(fd, F_GETFD), 0);
    CHECK_EQ("F_GETFL", fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    CHECK_EQ("F_SETFL", fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK), 0);
    CHECK("status flags are shared", (fcntl(copy, F_GETFL) & (O_APPEND | O_NONBLOCK)) == (O_APPEND | O_NONBLOCK));
    CHECK_ERRNO("fcntl unknown", fcntl(fd, 9999), EINVAL);
    CHECK_EQ("flock", flock(fd, LOCK_EX), 0);
    int other = open("d", O_RDWR);
    CHECK_ERRNO("flock conflict", flock(other, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    CHECK_EQ("flock through a dup", flock(copy, LOCK_SH | LOCK_NB), 0);
    CHECK_EQ("shared with shared", flock(other, LOCK_SH | LOCK_NB), 0);
    CHECK_ERRNO("flock bad operation", flock(fd, 7), EINVAL);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    CHECK_EQ("F_SETLK", fcntl(fd, F_SETLK, &lock), 0);
    CHECK_EQ("own lock is no conflict", (fcntl(other, F_GETLK, &lock), lock.l_type), F_UNLCK);
    struct flock ofd = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 20, .l_len = 5};
    CHECK_EQ("F_OFD_SETLK", fcntl(fd, F_OFD_SETLK, &ofd), 0);
    CHECK_ERRNO("OFD conflict in one process", fcntl(other, F_OFD_SETLK, &ofd), EAGAIN);
    close(other);
    CHECK_EQ("close_range", close_range(150, 250, 0), 0);
    CHECK_ERRNO("closed by range", fcntl(150, F_GETFD), EBADF);
    close(copy);
    close(fd);
}

static void names(void)
{
    CHECK_EQ("mkdir", mkdir("dir", 0755), 0);
    CHECK_ERRNO("mkdir again", mkdir("dir", 0755), EEXIST);
    CHECK_ERRNO("mkdir in nothing", mkdir("no/dir", 0755), ENOENT);
    CHECK_EQ("symlink", symlink("d", "link"), 0);
    char target[16] = "";
    CHECK_EQ("readlink", readlink("link", target, sizeof target), 1);
    CHECK_EQ("readlink cuts", readlink("/proc/self/exe", target, 1), 1);
    CHECK_ERRNO("readlink of a file", readlink("d", target, sizeof target), EINVAL);
    CHECK_ERRNO("O_NOFOLLOW", open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
    symlink("loop", "loop");
    CHECK_ERRNO("loop", open("loop", O_RDONLY), ELOOP);
    symlink("missing", "dangling");
    CHECK_ERRNO("dangling", open("dangling", O_RDONLY), ENOENT);
    CHECK_ERRNO("O_EXCL on a link", open("dangling", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
    struct stat st;
    CHECK_EQ("lstat", lstat("link", &st), 0);
    CHECK("lstat sees the link", S_ISLNK(st.st_mode) && st.st_size == 1);
    CHECK_EQ("link", link("d", "hard"), 0);
    CHECK_EQ("two links", stat("d", &st) ? -1 : (long)st.st_nlink, 2);
    CHECK_ERRNO("link to an existing name", link("d", "dir"), EEXIST);
    CHECK_ERRNO("link of a directory", link("dir", "dir2"), EPERM);
    CHECK_ERRNO("unlink a directory", unlink("dir"), EISDIR);
    CHECK_ERRNO("rmdir a file", rmdir("d"), ENOTDIR);
    close(open("dir/x", O_CREAT | O_WRONLY, 0600));
    CHECK_ERRNO("rmdir not empty", rmdir("dir"), ENOTEMPTY);
    CHECK_ERRNO("rmdir dot", rmdir("."), EINVAL);
    CHECK_EQ("rename", rename("dir/x", "dir/y"), 0);
    CHECK_ERRNO("rename of nothing", rename("dir/x", "dir/z"), ENOENT);
    CHECK_ERRNO("rename a directory onto a file", rename("dir", "d"), ENOTDIR);
    CHECK_ERRNO("rename a file onto a directory", rename("d", "dir"), EISDIR);
    CHECK_ERRNO("rename into itself", rename("dir", "dir/sub"), EINVAL);
    CHECK_ERRNO("RENAME_NOREPLACE", renameat2(AT_FDCWD, "d", AT_FDCWD, "hard", RENAME_NOREPLACE), EEXIST);
    mkdir("dir3", 0755);
    CHECK_EQ("RENAME_EXCHANGE", renameat2(AT_FDCWD, "dir3", AT_FDCWD, "dir", RENAME_EXCHANGE), 0);
    CHECK_EQ("exchanged", access("dir3/y", F_OK), 0);
    CHECK_EQ("rename between two names of one file", rename("d", "hard"), 0);
    CHECK_EQ("which does nothing", access("d", F_OK), 0);
    int fd = open("hard", O_RDONLY);
    unlink("hard");
    unlink("d");
    CHECK_EQ("open file outlives its names", fstat(fd, &st) ? -1 : (long)st.st_nlink, 0);
    close(fd);
    CHECK_EQ("mkfifo", mkfifo("fifo", 0600), 0);
    CHECK_ERRNO("fifo writer without a reader", open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    fd = open("fifo", O_RDONLY | O_NONBLOCK);
    CHECK("fifo reader", fd >= 0);
    CHECK_ERRNO("seek a fifo", lseek(fd, 0, SEEK_SET), ESPIPE);
    close(fd);
}

static void directories(void)
{
    mkdir("list", 0755);
    char name[32];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "list/file-%03d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    DIR *dir = opendir("list");
    int seen = 0, dots = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        seen += entry->d_name[0] == 'f';
        dots += entry->d_name[0] == '.';
    }
    CHECK_EQ("every entry once", seen, 300);
    CHECK_EQ("dot and dot-dot", dots, 2);
    rewinddir(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] == 'f')
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    CHECK_EQ("removed while listing", rmdir("list"), 0);
    CHECK_EQ("chdir", chdir("dir3"), 0);
    char *cwd = getcwd(NULL, 0);
    CHECK("getcwd", cwd && !strcmp(cwd + strlen(cwd) - 5, "/dir3"));
    free(cwd);
    CHECK_ERRNO("getcwd too small", syscall(79, (char[2]){0}, 2), ERANGE);
    unlink("y");
    rmdir("../dir3");
    CHECK_ERRNO("getcwd of a removed directory", syscall(79, (char[4096]){0}, 4096), ENOENT);
    CHECK_ERRNO("create in a removed directory", open("x", O_CREAT | O_WRONLY, 0600), ENOENT);
    chdir("..");
    CHECK_EQ("back", access("dir", F_OK), 0);
}

static void attributes(void)
{
    int fd = open("a", O_CREAT | O_RDWR, 0600);
    struct stat st;
    CHECK_EQ("fchmod", fchmod(fd, 04711), 0);
    CHECK_EQ("mode kept", fstat(fd, &st) ? -1 : (long)(st.st_mode & 07777), 04711);
    CHECK_EQ("chown", fchown(fd, 12, 34), 0);
    fstat(fd, &st);
    CHECK("owner", st.st_uid == 12 && st.st_gid == 34);
    CHECK_EQ("chown clears set-uid", st.st_mode & 07777, 0711);
    CHECK_EQ("chown -1 -1", fchown(fd, -1, -1), 0);
    struct timespec times[2] = {{100, 5}, {0, UTIME_OMIT}};
    CHECK_EQ("utimensat", futimens(fd, times), 0);
    fstat(fd, &st);
    CHECK("access time", st.st_atim.tv_sec == 100 && st.st_atim.tv_nsec == 5);
    times[0].tv_nsec = 2000000000;
    CHECK_ERRNO("bad nanoseconds", futimens(fd, times), EINVAL);
    CHECK_EQ("access as root", access("a", R_OK | W_OK | X_OK), 0);
    CHECK_ERRNO("access bad mode", access("a", 99), EINVAL);
    fchmod(fd, 0600);
    CHECK_ERRNO("root needs one execute bit", access("a", X_OK), EACCES);
    mode_t old = umask(077);
    CHECK_EQ("umask", umask(old), 077);
    struct statx sx;
    CHECK_EQ("statx", statx(AT_FDCWD, "a", 0, STATX_BASIC_STATS, &sx), 0);
    CHECK("statx size", sx.stx_size == 0 && (sx.stx_mode & 07777) == 0600);
    CHECK_ERRNO("fstatat empty path without the flag", fstatat(fd, "", &st, 0), ENOENT);
    CHECK_EQ("fstatat empty path", fstatat(fd, "", &st, AT_EMPTY_PATH), 0);
    CHECK_ERRNO("at of a file", fstatat(fd, "x", &st, 0), ENOTDIR);
    CHECK_ERRNO("at of nothing", fstatat(777, "x", &st, 0), EBADF);
    CHECK_EQ("absolute path ignores the descriptor", fstatat(777, "/", &st, 0), 0);
    close(fd);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    umask(022);
    enter_scratch();
    opening();
    data();
    descriptors();
    names();
    directories();
    attributes();
    return finish();
}
