/* Unix sockets in depth: control data, blocking, timeouts, readiness, names: unix(7), sendmsg(2), ... */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static int revents(int fd)
{
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static socklen_t name(struct sockaddr_un *addr, const char *text, size_t len)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(addr->sun_path, text, len);
    return offsetof(struct sockaddr_un, sun_path) + len;
}

static void endings(void)
{
    int s[2];
    char buf[16];
    int bare = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ("unconnected", revents(bare), POLLOUT | POLLHUP);
    CHECK_EQ("shut down unconnected", shutdown(bare, SHUT_RDWR), 0);
    CHECK_ERRNO("receive unconnected", recv(bare, buf, 1, 0), EINVAL);
    CHECK_ERRNO("send unconnected", send(bare, buf, 1, 0), ENOTCONN);
    close(bare);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    CHECK_EQ("connected", revents(s[0]), POLLOUT);
    shutdown(s[0], SHUT_WR);
    CHECK_EQ("the other has shut down", revents(s[1]), POLLIN | POLLOUT | POLLRDHUP);
    close(s[0]);
    CHECK_EQ("the other is gone", revents(s[1]), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    close(s[1]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    write(s[0], "lost", 4);
    write(s[1], "kept", 4);
    close(s[1]);
    CHECK("a reset is an error", revents(s[0]) & POLLERR);
    CHECK_ERRNO("but not to a send", send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ("what was sent before it", recv(s[0], buf, 16, 0), 4);
    CHECK_ERRNO("is told once", recv(s[0], buf, 16, 0), ECONNRESET);
    CHECK_EQ("and then the end", recv(s[0], buf, 16, 0), 0);
    close(s[0]);
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    write(s[0], "lost", 4);
    close(s[1]);
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(s[0], SOL_SOCKET, SO_ERROR, &error, &len);
    CHECK_EQ("SO_ERROR takes it", error, ECONNRESET);
    CHECK_EQ("SO_ERROR has taken it", recv(s[0], buf, 16, 0), 0);
    close(s[0]);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    close(s[1]);
    CHECK_ERRNO("a datagram to nobody", send(s[0], "x", 1, 0), ECONNREFUSED);
    CHECK_ERRNO("nobody is forgotten", send(s[0], "x", 1, 0), ENOTCONN);
    close(s[0]);
}

static volatile int pipes_broken;

static void broken(int signal)
{
    pipes_broken++;
}

static void broken_pipes(void)
{
    int s[2];
    signal(SIGPIPE, broken);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    close(s[1]);
    send(s[0], "x", 1, MSG_NOSIGNAL);
    CHECK_EQ("MSG_NOSIGNAL", pipes_broken, 0);
    send(s[0], "x", 1, 0);
    CHECK_EQ("send raises SIGPIPE", pipes_broken, 1);
    write(s[0], "x", 1);
    CHECK_EQ("so does write", pipes_broken, 2);
    close(s[0]);
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    close(s[1]);
    CHECK_ERRNO("a packet to nobody", write(s[0], "x", 1), EPIPE);
    CHECK_EQ("raises nothing", pipes_broken, 2);
    close(s[0]);
    signal(SIGPIPE, SIG_IGN);
}

struct control {
    struct msghdr msg;
    struct iovec iov;
    char data[256];
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
};

static struct msghdr *prepare(struct control *c, size_t len, size_t control)
{
    c->iov = (struct iovec){c->data, len};
    c->msg = (struct msghdr){.msg_iov = &c->iov, .msg_iovlen = 1, .msg_control = control ? c->control.bytes : NULL, .msg_controllen = control};
    return &c->msg;
}

static int send_control(int fd, struct control *c, int type, const void *data, size_t len)
{
    prepare(c, 4, CMSG_SPACE(len));
    struct cmsghdr *head = CMSG_FIRSTHDR(&c->msg);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = type, .cmsg_len = CMSG_LEN(len)};
    memcpy(CMSG_DATA(head), data, len);
    return sendmsg(fd, &c->msg, 0);
}

static void control_data(void)
{
    int s[2], on = 1, fds[3] = {0, 1, 2};
    static struct control c;
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    send(s[0], "plain", 5, 0);
    CHECK_EQ("three descriptors", send_control(s[0], &c, SCM_RIGHTS, fds, sizeof fds), 4);
    send(s[0], "after", 5, 0);
    CHECK_EQ("run together up to them", recvmsg(s[1], prepare(&c, 99, 256), MSG_CMSG_CLOEXEC), 9);
    struct cmsghdr *head = CMSG_FIRSTHDR(&c.msg);
    CHECK("they arrive", head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof fds));
    int got[3];
    memcpy(got, CMSG_DATA(head), sizeof got);
    CHECK_EQ("close on exec", fcntl(got[2], F_GETFD), FD_CLOEXEC);
    for (int i = 0; i < 3; i++)
        close(got[i]);
    CHECK_EQ("and the rest later", recv(s[1], c.data, 99, 0), 5);
    send_control(s[0], &c, SCM_RIGHTS, fds, sizeof fds);
    recvmsg(s[1], prepare(&c, 99, CMSG_LEN(2 * sizeof(int))), 0);
    head = CMSG_FIRSTHDR(&c.msg);
    CHECK("cut", c.msg.msg_flags == MSG_CTRUNC && head->cmsg_len == CMSG_LEN(2 * sizeof(int)));
    memcpy(got, CMSG_DATA(head), 8);
    close(got[0]);
    close(got[1]);
    send_control(s[0], &c, SCM_RIGHTS, fds, sizeof fds);
    recvmsg(s[1], prepare(&c, 99, 0), 0);
    CHECK_EQ("no room at all", c.msg.msg_flags, MSG_CTRUNC);
    fds[1] = 99;
    CHECK_ERRNO("no such descriptor", send_control(s[0], &c, SCM_RIGHTS, fds, sizeof fds), EBADF);
    CHECK_ERRNO("no such type", send_control(s[0], &c, 77, fds, sizeof fds), EINVAL);
    CHECK_EQ("SO_PASSCRED", setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    write(s[0], "who", 3);
    recvmsg(s[1], prepare(&c, 99, 256), 0);
    head = CMSG_FIRSTHDR(&c.msg);
    struct ucred cred;
    memcpy(&cred, CMSG_DATA(head), sizeof cred);
    CHECK("credentials unasked", head->cmsg_type == SCM_CREDENTIALS && cred.pid == getpid() && cred.uid == getuid());
    pid_t pid = fork();
    if (!pid) {
        write(s[0], "child", 5);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    write(s[0], "parent", 6);
    CHECK_EQ("senders do not run together", recvmsg(s[1], prepare(&c, 99, 256), 0), 5);
    memcpy(&cred, CMSG_DATA(CMSG_FIRSTHDR(&c.msg)), sizeof cred);
    CHECK_EQ("of the child", cred.pid, pid);
    recv(s[1], c.data, 99, 0);
    cred = (struct ucred){pid, 0, 0};
    CHECK_ERRNO("a process that is gone", send_control(s[0], &c, SCM_CREDENTIALS, &cred, sizeof cred), ESRCH);
    close(s[0]);
    close(s[1]);
}

static void batches(void)
{
    int s[2];
    char a[8] = "one", b[8] = "second", in[3][8];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    struct iovec out[2] = {{a, 3}, {b, 6}}, to[3] = {{in[0], 8}, {in[1], 4}, {in[2], 8}};
    struct mmsghdr msgs[3] = {{{.msg_iov = out, .msg_iovlen = 1}}, {{.msg_iov = out + 1, .msg_iovlen = 1}}};
    CHECK_EQ("sendmmsg", sendmmsg(s[0], msgs, 2, 0), 2);
    CHECK_EQ("each length", msgs[1].msg_len, 6);
    for (int i = 0; i < 3; i++)
        msgs[i] = (struct mmsghdr){{.msg_iov = to + i, .msg_iovlen = 1}};
    CHECK_EQ("recvmmsg", recvmmsg(s[1], msgs, 3, MSG_WAITFORONE, NULL), 2);
    CHECK("one is cut", msgs[1].msg_len == 4 && msgs[1].msg_hdr.msg_flags == MSG_TRUNC);
    CHECK_ERRNO("recvmmsg of nothing", recvmmsg(s[1], msgs, 3, MSG_DONTWAIT, NULL), EAGAIN);
    struct timespec bad = {-1, 0};
    CHECK_ERRNO("recvmmsg bad timeout", recvmmsg(s[1], msgs, 3, 0, &bad), EINVAL);
    struct msghdr many = {.msg_iov = to, .msg_iovlen = 1025};
    CHECK_ERRNO("too many segments", sendmsg(s[0], &many, 0), EMSGSIZE);
    close(s[0]);
    close(s[1]);
}

static void *connect_late(void *path)
{
    struct sockaddr_un addr;
    socklen_t len = name(&addr, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    long result = connect(fd, (struct sockaddr *)&addr, len);
    write(fd, "late", 4);
    return (void *)(result ? -1L : fd);
}

static void blocking(void)
{
    int s[2], pending = 0;
    char buf[300000] = "";
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    struct timeval brief = {0, 20000};
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    CHECK_ERRNO("SO_RCVTIMEO", recv(s[0], buf, 1, 0), EAGAIN);
    CHECK_ERRNO("SO_RCVTIMEO of read", read(s[0], buf, 1), EAGAIN);
    long sent = send(s[0], buf, sizeof buf, 0);
    CHECK("SO_SNDTIMEO", sent > 200000 && sent < (long)sizeof buf);
    CHECK_EQ("FIONREAD", (ioctl(s[1], FIONREAD, &pending), pending), sent);
    CHECK_EQ("full", revents(s[0]), 0);
    pid_t pid = fork();
    if (!pid) {
        for (long n; sent && (n = read(s[1], buf, 1000)) > 0; sent -= n)
            ;
        usleep(20000);
        for (int i = 0; i < 3; i++) {
            write(s[1], "part", 4);
            usleep(5000);
        }
        _exit(0);
    }
    brief.tv_usec = 0;
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    CHECK_EQ("MSG_WAITALL", recv(s[0], buf, 12, MSG_WAITALL), 12);
    CHECK("all of it", !memcmp(buf, "partpartpart", 12));
    waitpid(pid, NULL, 0);
    close(s[0]);
    close(s[1]);
    struct sockaddr_un addr;
    socklen_t len = name(&addr, "backlog", 8);
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(server, (struct sockaddr *)&addr, len);
    listen(server, 0);
    connect(client, (struct sockaddr *)&addr, len);
    int hasty = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO("a full backlog", connect(hasty, (struct sockaddr *)&addr, len), EAGAIN);
    pthread_t thread;
    pthread_create(&thread, NULL, connect_late, "backlog");
    usleep(20000);
    int first = accept(server, NULL, NULL), second = accept(server, NULL, NULL);
    CHECK_EQ("the late one got in", read(second, buf, 9), 4);
    void *late;
    pthread_join(thread, &late);
    CHECK("it connected", (long)late >= 0);
    close(server);
    CHECK_ERRNO("nobody listens", connect(hasty, (struct sockaddr *)&addr, len), ECONNREFUSED);
    close(first);
    close(second);
    close(client);
    close(hasty);
    close((long)late);
}

static void *drain(void *fd)
{
    static char buf[4096];
    usleep(10000);
    for (int i = 0; i < 40; i++)
        recv((long)fd, buf, sizeof buf, 0);
    return NULL;
}

static void crowds(void)
{
    struct sockaddr_un addr, mine, from;
    socklen_t len = name(&addr, "\0rampart-crowd", 14), mine_len = name(&mine, "\0rampart-mine", 13);
    int to = socket(AF_UNIX, SOCK_DGRAM, 0), by = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind(to, (struct sockaddr *)&addr, len);
    bind(by, (struct sockaddr *)&mine, mine_len);
    connect(by, (struct sockaddr *)&addr, len);
    int sent = 0;
    while (send(by, "x", 1, MSG_DONTWAIT) == 1)
        sent++;
    CHECK_EQ("strangers may send so many", sent, 11);
    CHECK_EQ("a crowd is not writable", revents(by), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, drain, (void *)(long)to);
    for (sent = 0; sent < 29 && send(by, "y", 1, 0) == 1; sent++)
        ;
    CHECK_EQ("and is waited for", sent, 29);
    pthread_join(thread, NULL);
    send(by, "z", 1, 0);
    socklen_t from_len = sizeof from;
    CHECK_EQ("recvfrom", recvfrom(to, &sent, 1, 0, (struct sockaddr *)&from, &from_len), 1);
    CHECK("names the sender", from_len == mine_len && !memcmp(&from, &mine, mine_len));
    connect(to, (struct sockaddr *)&addr, len);
    CHECK_ERRNO("who is connected takes nothing else", send(by, "z", 1, 0), EPERM);
    struct sockaddr none = {AF_UNSPEC};
    CHECK_EQ("disconnect", connect(by, &none, sizeof none), 0);
    CHECK_ERRNO("has no peer", send(by, "z", 1, 0), ENOTCONN);
    from_len = sizeof from;
    int any = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_EQ("autobind", bind(any, (struct sockaddr *)&addr, sizeof addr.sun_family), 0);
    getsockname(any, (struct sockaddr *)&from, &from_len);
    CHECK("gives a name", from_len == 8 && !from.sun_path[0]);
    CHECK_ERRNO("bind twice", bind(any, (struct sockaddr *)&mine, mine_len), EINVAL);
    int stream = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_EQ("another type, another name space", bind(stream, (struct sockaddr *)&mine, mine_len), 0);
    close(stream);
    close(any);
    close(to);
    close(by);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    enter_scratch();
    endings();
    broken_pipes();
    control_data();
    batches();
    blocking();
    crowds();
    return finish();
}
