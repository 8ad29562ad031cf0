/* Descriptor tables: dup(2), fcntl(2), close-on-exec, limits. */
#include "guest.h"
int main(void) {
    int fd = open("/dev/null", O_RDWR);
    CHECK("lowest descriptor is taken", fd == 3);
    CHECK("dup", dup(fd) == 4);
    CHECK("dup2 to a number", dup2(fd, 50) == 50);
    CHECK("dup2 to itself", dup2(50, 50) == 50);
    FAILS("dup2 of a closed one to itself", dup2(51, 51), EBADF);
    FAILS("dup3 to itself", dup3(50, 50, 0), EINVAL);
    FAILS("dup3 with an unknown flag", dup3(fd, 51, O_APPEND), EINVAL);
    FAILS("dup2 to a negative number", dup2(fd, -1), EBADF);
    CHECK("F_DUPFD starts at its argument", fcntl(fd, F_DUPFD, 40) == 40);
    CHECK("F_DUPFD_CLOEXEC", fcntl(fd, F_DUPFD_CLOEXEC, 40) == 41 && fcntl(41, F_GETFD) == FD_CLOEXEC);
    CHECK("a duplicate does not close on exec", fcntl(dup(41), F_GETFD) == 0);
    CHECK("F_SETFL keeps the access mode", fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK) == 0
          && (fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == (O_RDWR | O_APPEND | O_NONBLOCK));
    CHECK("status flags are shared by duplicates", fcntl(50, F_GETFL) & O_APPEND);
    FAILS("unknown fcntl", fcntl(fd, 9999), EINVAL);
    struct rlimit limit = {60, 60}, old;
    CHECK("limit", getrlimit(RLIMIT_NOFILE, &old) == 0);
    limit.rlim_max = old.rlim_max;
    CHECK("lower the limit", setrlimit(RLIMIT_NOFILE, &limit) == 0);
    FAILS("dup2 above the limit", dup2(fd, 60), EBADF);
    FAILS("F_DUPFD above the limit", fcntl(fd, F_DUPFD, 60), EINVAL);
    while (dup(fd) >= 0) {}
    FAILS("the table is full", open("/dev/null", O_RDONLY), EMFILE);
    CHECK("close_range", syscall(SYS_close_range, 5, 59, 0) == 0 && fcntl(50, F_GETFD) == -1);
    int status;
    CHILD(status, { close(fd); });
    CHECK("a child closes only its own", status == 0 && fcntl(fd, F_GETFD) == 0);
    return done();
}
