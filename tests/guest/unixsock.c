/* unix(7): pairs, listeners, datagrams, passing descriptors. */
#include "guest.h"
static int send_fd(int sock, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(sock, &msg, 0);
}
static int receive_fd(int sock) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1) return -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}
int main(void) {
    enter_scratch();
    int s[2];
    char buf[32];
    CHECK("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
    CHECK("both ways", write(s[0], "ab", 2) == 2 && write(s[1], "cd", 2) == 2 && read(s[1], buf, 9) == 2 && read(s[0], buf, 9) == 2);
    CHECK("peek leaves", write(s[0], "p", 1) == 1 && recv(s[1], buf, 9, MSG_PEEK) == 1 && recv(s[1], buf, 9, 0) == 1);
    FAILS("nothing there", recv(s[1], buf, 9, MSG_DONTWAIT), EAGAIN);
    int fd = open("f", O_RDWR | O_CREAT, 0600);
    CHECK("send a descriptor", write(fd, "shared", 6) == 6 && send_fd(s[0], fd) == 1);
    int got = receive_fd(s[1]);
    CHECK("it is the same open file", got > fd && lseek(got, 0, SEEK_CUR) == 6 && fcntl(got, F_GETFD) == FD_CLOEXEC);
    CHECK("shutdown", shutdown(s[0], SHUT_WR) == 0 && read(s[1], buf, 9) == 0);
    FAILS("no more writing", send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    close(s[0]); close(s[1]);
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "sock"};
    int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
    FAILS("connect to nothing", connect(c, (void *)&addr, sizeof addr), ENOENT);
    CHECK("bind", bind(l, (void *)&addr, sizeof addr) == 0);
    FAILS("not listening", connect(c, (void *)&addr, sizeof addr), ECONNREFUSED);
    FAILS("bound already", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&addr, sizeof addr), EADDRINUSE);
    CHECK("listen, connect", listen(l, 4) == 0 && connect(c, (void *)&addr, sizeof addr) == 0);
    int a = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    CHECK("accept", a >= 0 && write(c, "hi", 2) == 2 && read(a, buf, 9) == 2);
    struct ucred cred;
    socklen_t len = sizeof cred;
    CHECK("peer credentials", getsockopt(a, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid == getpid());
    CHECK("peer closes", close(c) == 0 && read(a, buf, 9) == 0);
    CHECK("datagrams", socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
    CHECK("keep their bounds", write(s[0], "one", 3) == 3 && write(s[0], "three", 5) == 5
          && read(s[1], buf, 2) == 2 && read(s[1], buf, 9) == 5);
    CHECK("sequenced packets", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s) == 0 && write(s[0], "x", 1) == 1 && read(s[1], buf, 9) == 1);
    FAILS("unknown family", socket(77, SOCK_STREAM, 0), EAFNOSUPPORT);
    unlink("sock"); unlink("f");
    leave_scratch();
    return done();
}
