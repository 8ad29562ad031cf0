/* pipe(7): order, atomicity of ends, SIGPIPE, readiness. */
#include "guest.h"
int main(void) {
    int p[2];
    char buf[70000];
    CHECK("pipe2", pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0 && fcntl(p[0], F_GETFD) == FD_CLOEXEC);
    FAILS("unknown flag", pipe2((int[2]){0}, 0x40000001), EINVAL);
    FAILS("empty", read(p[0], buf, 1), EAGAIN);
    CHECK("write", write(p[1], "abc", 3) == 3);
    int n = 0;
    CHECK("FIONREAD", ioctl(p[0], FIONREAD, &n) == 0 && n == 3);
    CHECK("read is short", read(p[0], buf, 10) == 3 && !memcmp(buf, "abc", 3));
    CHECK("a full pipe takes 64 KiB", write(p[1], buf, sizeof buf) == 65536);
    FAILS("and no more", write(p[1], buf, 1), EAGAIN);
    struct pollfd pfd[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
    CHECK("poll says readable, not writable", poll(pfd, 2, 0) == 1 && pfd[0].revents == POLLIN && !pfd[1].revents);
    FAILS("no seeking", lseek(p[0], 0, SEEK_SET), ESPIPE);
    FAILS("reading the write end", read(p[1], buf, 1), EBADF);
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    FAILS("no reader", write(p[1], "x", 1), EPIPE);
    CHECK("poll says error", (pfd[0].fd = p[1], pfd[0].events = POLLOUT, poll(pfd, 1, 0) == 1) && (pfd[0].revents & POLLERR));
    int status;
    CHILD(status, { signal(SIGPIPE, SIG_DFL); if (write(p[1], "x", 1)) {} });
    CHECK("SIGPIPE kills", WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    close(p[1]);
    CHECK("pipe", pipe(p) == 0);
    CHILD(status, { close(p[0]); usleep(20000); if (write(p[1], "late", 4) != 4) _exit(1); });
    CHECK("a blocked reader is woken", status == 0 && read(p[0], buf, 10) == 4);
    close(p[1]);
    CHECK("end of file", read(p[0], buf, 1) == 0);
    CHECK("poll says hang-up", (pfd[0].fd = p[0], pfd[0].events = POLLIN, poll(pfd, 1, 0) == 1) && pfd[0].revents == POLLHUP);
    return done();
}
