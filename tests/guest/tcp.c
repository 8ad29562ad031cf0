/* TCP over the loopback: how sockets meet, talk and part. */
#include "check.h"
#include "inet.h"
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <linux/sockios.h>

static int port_of(int fd)
{
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;
    return getsockname(fd, (struct sockaddr *)&a, &len) ? -1 : ntohs(a.sin6_port);
}

static int waits(int fd, int events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, 3000) == 1 ? p.revents : -1;
}

static int listener(int *port, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at("127.0.0.1", 0);
    bind(fd, SA(a));
    listen(fd, backlog);
    *port = port_of(fd);
    return fd;
}

static void pair(int s[2])
{
    int port, l = listener(&port, 4);
    struct sockaddr_in a = at("127.0.0.1", port);
    s[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(s[0], SA(a));
    s[1] = accept(l, NULL, NULL);
    close(l);
}

static void reset(int fd)
{
    struct linger l = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

static void creation(void)
{
    CHECK_ERRNO("stream of UDP", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    CHECK_ERRNO("datagram of TCP", socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    CHECK_ERRNO("seqpacket", socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO("rdm", socket(AF_INET6, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO("negative protocol", socket(AF_INET, SOCK_STREAM, -1), EINVAL);
    CHECK_ERRNO("large protocol", socket(AF_INET, SOCK_STREAM, 500), EINVAL);
    CHECK_ERRNO("raw without protocol", socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    CHECK_ERRNO("socketpair", socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}), EOPNOTSUPP);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    CHECK("flags", (fcntl(fd, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK_EQ("SO_TYPE", number(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK_EQ("SO_DOMAIN", number(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
    CHECK_EQ("SO_PROTOCOL", number(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    CHECK_EQ("SO_ACCEPTCONN", number(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
    CHECK_EQ("fresh", revents(fd), POLLOUT | POLLHUP);
    char c;
    CHECK_ERRNO("recv of the unconnected", recv(fd, &c, 1, 0), ENOTCONN);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO("send of the unconnected", send(fd, "x", 1, 0), EPIPE);
    CHECK_ERRNO("shutdown of the unconnected", shutdown(fd, SHUT_RDWR), ENOTCONN);
    CHECK_ERRNO("accept of the unconnected", accept(fd, NULL, NULL), EINVAL);
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    CHECK_EQ("getsockname", getsockname(fd, (struct sockaddr *)&a, &len), 0);
    CHECK("is nothing", len == 16 && a.sin_family == AF_INET && !a.sin_port && !a.sin_addr.s_addr);
    CHECK_ERRNO("getpeername", getpeername(fd, (struct sockaddr *)&a, &len), ENOTCONN);
    close(fd);
}

static void binding(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at("127.0.0.1", 0), b;
    socklen_t len = sizeof b;
    CHECK_ERRNO("short address", bind(fd, (struct sockaddr *)&a, 15), EINVAL);
    a.sin_family = AF_INET6;
    CHECK_ERRNO("another family", bind(fd, SA(a)), EAFNOSUPPORT);
    a = at("192.0.2.1", 0);
    CHECK_ERRNO("foreign address", bind(fd, SA(a)), EADDRNOTAVAIL);
    a = at("127.0.0.1", 0);
    CHECK_EQ("bind", bind(fd, SA(a)), 0);
    getsockname(fd, (struct sockaddr *)&b, &len);
    int port = ntohs(b.sin_port);
    CHECK("a port", port >= 1024 && b.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK_ERRNO("twice", bind(fd, SA(a)), EINVAL);
    a.sin_port = b.sin_port;
    CHECK_ERRNO("taken", bind(other, SA(a)), EADDRINUSE);
    struct sockaddr_in any = at("0.0.0.0", port), two = at("127.0.0.2", port);
    CHECK_ERRNO("taken for any", bind(other, SA(any)), EADDRINUSE);
    CHECK_EQ("another address", bind(other, SA(two)), 0);
    close(other);
    other = socket(AF_INET, SOCK_STREAM, 0);
    set(other, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_ERRNO("reuse of one side", bind(other, SA(a)), EADDRINUSE);
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_EQ("reuse of both", bind(other, SA(a)), 0);
    CHECK_EQ("listen", listen(fd, 1), 0);
    CHECK_ERRNO("both listen", listen(other, 1), EADDRINUSE);
    close(other);
    other = socket(AF_INET, SOCK_STREAM, 0);
    set(other, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_ERRNO("reuse of a listener", bind(other, SA(a)), EADDRINUSE);
    close(fd);
    CHECK_EQ("free again", bind(other, SA(a)), 0);
    close(other);
    int s[2];
    for (int i = 0; i < 2; i++) {
        s[i] = socket(AF_INET, SOCK_STREAM, 0);
        set(s[i], SOL_SOCKET, SO_REUSEPORT, 1);
    }
    CHECK("SO_REUSEPORT", !bind(s[0], SA(a)) && !bind(s[1], SA(a)) && !listen(s[0], 1) && !listen(s[1], 1));
    other = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("not without it", bind(other, SA(a)), EADDRINUSE);
    close(s[0]);
    close(s[1]);
    close(other);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ("listen without bind", listen(fd, 1), 0);
    CHECK("takes a port", port_of(fd) >= 1024);
    CHECK_EQ("SO_ACCEPTCONN", number(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    CHECK_EQ("listen again", listen(fd, 7), 0);
    CHECK_EQ("nothing to accept", revents(fd), 0);
    char c;
    CHECK_ERRNO("recv of a listener", recv(fd, &c, 1, 0), ENOTCONN);
    CHECK_ERRNO("send of a listener", send(fd, &c, 1, 0), EPIPE);
    a = at("127.0.0.1", port_of(fd));
    CHECK_ERRNO("connect of a listener", connect(fd, SA(a)), EISCONN);
    int n;
    CHECK_ERRNO("FIONREAD of a listener", ioctl(fd, FIONREAD, &n), EINVAL);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    CHECK_ERRNO("accept of none", accept(fd, NULL, NULL), EAGAIN);
    CHECK_EQ("shutdown of a listener", shutdown(fd, SHUT_RD), 0);
    CHECK_ERRNO("listens no more", accept(fd, NULL, NULL), EINVAL);
    close(fd);
    if (!geteuid()) {
        pid_t pid = fork();
        if (!pid) {
            setuid(65534);
            fd = socket(AF_INET, SOCK_STREAM, 0);
            a = at("127.0.0.1", 80);
            _exit(bind(fd, SA(a)) == -1 && errno == EACCES);
        }
        int status;
        waitpid(pid, &status, 0);
        CHECK("privileged port", WIFEXITED(status) && WEXITSTATUS(status) == 1);
    }
}

static void connecting(void)
{
    int port, l = listener(&port, 1), fd = socket(AF_INET, SOCK_STREAM, 0), err;
    struct sockaddr_in a = at("127.0.0.1", port), b, none = {.sin_family = AF_UNSPEC};
    socklen_t len = sizeof b;
    CHECK_ERRNO("short", connect(fd, (struct sockaddr *)&a, 15), EINVAL);
    CHECK_ERRNO("very short", connect(fd, (struct sockaddr *)&a, 1), EINVAL);
    a.sin_family = AF_UNIX;
    CHECK_ERRNO("another family", connect(fd, SA(a)), EAFNOSUPPORT);
    a.sin_family = AF_INET;
    CHECK_EQ("connect", connect(fd, SA(a)), 0);
    CHECK_ERRNO("connect twice", connect(fd, SA(a)), EISCONN);
    CHECK_ERRNO("listen of the connected", listen(fd, 1), EINVAL);
    CHECK_EQ("there is one", revents(l), POLLIN);
    int s = accept4(l, (struct sockaddr *)&b, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK("accept4", s >= 0 && len == 16 && ntohs(b.sin_port) == port_of(fd) && b.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK("its flags", (fcntl(s, F_GETFL) & O_NONBLOCK) && fcntl(s, F_GETFD) == FD_CLOEXEC);
    CHECK_EQ("its port", port_of(s), port);
    getpeername(fd, (struct sockaddr *)&b, &len);
    CHECK_EQ("getpeername", ntohs(b.sin_port), port);
    CHECK_EQ("ready", revents(fd), POLLOUT);
    char c;
    CHECK_ERRNO("nothing there", recv(s, &c, 1, 0), EAGAIN);
    CHECK_EQ("connect to nowhere", connect(fd, SA(none)), 0);
    CHECK_ERRNO("resets", recv(s, &c, 1, 0), ECONNRESET);
    CHECK_EQ("and back again", connect(fd, SA(a)), 0);
    close(s);
    s = accept(l, NULL, NULL);
    close(s);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO("without waiting", connect(fd, SA(a)), EINPROGRESS);
    CHECK_EQ("is told", waits(fd, POLLOUT), POLLOUT);
    CHECK_EQ("SO_ERROR", number(fd, SOL_SOCKET, SO_ERROR), 0);
    CHECK_EQ("connect says it", connect(fd, SA(a)), 0);
    CHECK_ERRNO("once", connect(fd, SA(a)), EISCONN);
    close(fd);
    close(l);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("refused", connect(fd, SA(a)), ECONNREFUSED);
    CHECK_ERRNO("refused again", connect(fd, SA(a)), ECONNREFUSED);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_ERRNO("refused later", connect(fd, SA(a)), EINPROGRESS);
    CHECK_EQ("hangs up", waits(fd, POLLIN | POLLOUT), POLLIN | POLLOUT | POLLERR | POLLHUP);
    err = number(fd, SOL_SOCKET, SO_ERROR);
    CHECK_EQ("SO_ERROR of it", err, ECONNREFUSED);
    CHECK_EQ("once only", number(fd, SOL_SOCKET, SO_ERROR), 0);
    CHECK_ERRNO("connect after it", connect(fd, SA(a)), ECONNABORTED);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(fd, SA(a));
    CHECK_ERRNO("connect tells it", connect(fd, SA(a)), ECONNREFUSED);
    CHECK_ERRNO("and tries anew", connect(fd, SA(a)), EINPROGRESS);
    close(fd);
    l = listener(&port, 0);
    a = at("127.0.0.1", port);
    int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK_EQ("first of a backlog", connect(one, SA(a)), 0);
    CHECK_ERRNO("no place for the second", connect(two, SA(a)), EINPROGRESS);
    CHECK_EQ("waits for it", revents(two), 0);
    CHECK_ERRNO("still", connect(two, SA(a)), EALREADY);
    CHECK_ERRNO("nothing to read meanwhile", recv(two, &c, 1, 0), EAGAIN);
    CHECK_ERRNO("nor to write", send(two, &c, 1, 0), EAGAIN);
    close(accept(l, NULL, NULL));
    CHECK_EQ("has its place", waits(two, POLLOUT) & POLLOUT, POLLOUT);
    close(one);
    close(two);
    close(l);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    l = listener(&port, 1);
    a = at("0.0.0.0", port);
    close(l);
    l = socket(AF_INET, SOCK_STREAM, 0);
    set(l, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(l, SA(a));
    listen(l, 3);
    CHECK_EQ("any address is one's own", connect(fd, SA(a)), 0);
    len = sizeof b;
    getpeername(fd, (struct sockaddr *)&b, &len);
    CHECK_EQ("the loopback", b.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    int third = socket(AF_INET, SOCK_STREAM, 0);
    b = at("127.0.0.9", port);
    CHECK_EQ("all of 127/8", connect(third, SA(b)), 0);
    len = sizeof b;
    getsockname(third, (struct sockaddr *)&b, &len);
    CHECK_EQ("comes from 127.0.0.1", b.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    close(accept(l, NULL, NULL));
    s = accept(l, (struct sockaddr *)&b, &len);
    getsockname(s, (struct sockaddr *)&b, &len);
    CHECK_EQ("is met there", b.sin_addr.s_addr, inet_addr("127.0.0.9"));
    close(s);
    close(third);
    close(fd);
    close(l);
}

static void halves(void)
{
    int s[2];
    char buf[64];
    pair(s);
    CHECK_EQ("send", send(s[0], "hello", 5, 0), 5);
    int n;
    CHECK_EQ("FIONREAD", (ioctl(s[1], FIONREAD, &n), n), 5);
    CHECK_EQ("peek", recv(s[1], buf, 3, MSG_PEEK), 3);
    CHECK_EQ("read", read(s[1], buf, 64), 5);
    CHECK_EQ("SIOCOUTQ", (ioctl(s[0], SIOCOUTQ, &n), n), 0);
    CHECK_EQ("SHUT_WR", shutdown(s[0], SHUT_WR), 0);
    CHECK_EQ("end", read(s[1], buf, 64), 0);
    CHECK_EQ("end again", recv(s[1], buf, 64, MSG_DONTWAIT), 0);
    CHECK_EQ("half closed", revents(s[1]), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_EQ("at the other end", revents(s[0]), POLLOUT);
    CHECK_ERRNO("no more writes", send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ("the other way", send(s[1], "back", 4, 0), 4);
    CHECK_EQ("arrives", recv(s[0], buf, 64, 0), 4);
    CHECK_EQ("close", close(s[1]), 0);
    CHECK_EQ("ended", recv(s[0], buf, 64, 0), 0);
    CHECK_EQ("hung up", revents(s[0]), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    CHECK_ERRNO("no peer", getpeername(s[0], (struct sockaddr *)buf, &(socklen_t){64}), ENOTCONN);
    close(s[0]);
    pair(s);
    CHECK_EQ("SHUT_RD", shutdown(s[0], SHUT_RD), 0);
    CHECK_EQ("reads nothing", recv(s[0], buf, 64, 0), 0);
    CHECK_EQ("deaf", revents(s[0]), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_EQ("the other may write", send(s[1], "late", 4, 0), 4);
    CHECK_EQ("it is read", recv(s[0], buf, 64, 0), 4);
    CHECK_EQ("SHUT_RDWR", shutdown(s[0], SHUT_RDWR), 0);
    CHECK_EQ("both", revents(s[0]), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    CHECK_EQ("write to the deaf and mute", send(s[1], "x", 1, 0), 1);
    CHECK_ERRNO("has no reader", send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    close(s[0]);
    close(s[1]);
}

static int pipes_broken;
static void count(int signal) { pipes_broken += signal == SIGPIPE; }

static void resets(void)
{
    int s[2];
    char buf[8];
    signal(SIGPIPE, count);
    pair(s);
    close(s[1]);
    CHECK_EQ("a write after close", write(s[0], "x", 1), 1);
    CHECK_ERRNO("a second", write(s[0], "x", 1), EPIPE);
    CHECK_EQ("with a signal", pipes_broken, 1);
    CHECK_ERRNO("a third", send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ("without", pipes_broken, 1);
    CHECK_EQ("reads an end", read(s[0], buf, 8), 0);
    close(s[0]);
    pair(s);
    send(s[0], "unread", 6, 0);
    close(s[1]);
    CHECK_EQ("reset by unread data", revents(s[0]), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    CHECK_ERRNO("read of the reset", read(s[0], buf, 8), ECONNRESET);
    CHECK_EQ("then an end", read(s[0], buf, 8), 0);
    CHECK_ERRNO("and no writes", write(s[0], "x", 1), EPIPE);
    CHECK_EQ("a signal for it", pipes_broken, 2);
    close(s[0]);
    pair(s);
    send(s[1], "data", 4, 0);
    reset(s[1]);
    CHECK_EQ("data before a reset", read(s[0], buf, 8), 4);
    CHECK_ERRNO("then the reset", read(s[0], buf, 8), ECONNRESET);
    close(s[0]);
    pair(s);
    reset(s[1]);
    CHECK_ERRNO("write of the reset", write(s[0], "x", 1), ECONNRESET);
    CHECK_EQ("no signal for that", pipes_broken, 2);
    close(s[0]);
    pair(s);
    reset(s[1]);
    CHECK_EQ("SO_ERROR of the reset", number(s[0], SOL_SOCKET, SO_ERROR), ECONNRESET);
    CHECK_EQ("takes it", number(s[0], SOL_SOCKET, SO_ERROR), 0);
    CHECK_EQ("and it reads an end", read(s[0], buf, 8), 0);
    close(s[0]);
    int port, l = listener(&port, 3), fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at("127.0.0.1", port);
    connect(fd, SA(a));
    close(l);
    CHECK_ERRNO("a listener closed resets", read(fd, buf, 8), ECONNRESET);
    close(fd);
    signal(SIGPIPE, SIG_IGN);
}

static void *drain(void *arg)
{
    static char buf[65536];
    long total = 0, n;
    while ((n = read((long)arg, buf, sizeof buf)) > 0)
        total += n;
    return (void *)total;
}

static void flow(void)
{
    static char buf[1 << 16];
    int s[2], n;
    pair(s);
    fcntl(s[0], F_SETFL, O_NONBLOCK);
    long sent = 0, k;
    while ((k = send(s[0], buf, sizeof buf, 0)) > 0)
        sent += k;
    CHECK("until it is full", k == -1 && errno == EAGAIN && sent > 100000);
    CHECK_EQ("not writable", revents(s[0]), 0);
    CHECK("FIONREAD tells", !ioctl(s[1], FIONREAD, &n) && n > 0 && n <= sent);
    CHECK("SIOCOUTQ tells", !ioctl(s[0], SIOCOUTQ, &n) && n > 0 && n < sent);
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLOUT | EPOLLET, .data.fd = 7}, out;
    epoll_ctl(ep, EPOLL_CTL_ADD, s[0], &ev);
    CHECK_EQ("no edge yet", epoll_wait(ep, &out, 1, 0), 0);
    for (long got = 0; got < sent; got += k)
        k = recv(s[1], buf, sizeof buf, 0);
    CHECK_EQ("an edge", epoll_wait(ep, &out, 1, 3000), 1);
    CHECK_EQ("of room", out.events, EPOLLOUT);
    CHECK_EQ("one", epoll_wait(ep, &out, 1, 0), 0);
    ev.events = EPOLLIN | EPOLLET | EPOLLRDHUP;
    epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &ev);
    send(s[1], "a", 1, 0);
    CHECK("edge of data", epoll_wait(ep, &out, 1, 1000) == 1 && out.events == EPOLLIN);
    send(s[1], "b", 1, 0);
    CHECK("another", epoll_wait(ep, &out, 1, 1000) == 1 && out.events == EPOLLIN);
    close(s[1]);
    CHECK("edge of the end", epoll_wait(ep, &out, 1, 1000) == 1 && out.events == (EPOLLIN | EPOLLRDHUP));
    close(ep);
    close(s[0]);
    pair(s);
    pthread_t thread;
    pthread_create(&thread, NULL, drain, (void *)(long)s[1]);
    sent = 0;
    for (int i = 0; i < 400; i++)
        sent += write(s[0], buf, 1 + i * 163 % sizeof buf);
    shutdown(s[0], SHUT_WR);
    void *total;
    pthread_join(thread, &total);
    CHECK_EQ("all arrives", (long)total, sent);
    close(s[0]);
    close(s[1]);
    pair(s);
    struct timeval brief = {0, 30000};
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    CHECK_ERRNO("SO_RCVTIMEO", recv(s[0], buf, 1, 0), EAGAIN);
    setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    sent = 0;
    while ((k = send(s[0], buf, sizeof buf, 0)) == (long)sizeof buf)
        ;
    for (int i = 0; i < 8 && k > 0; i++)
        k = send(s[0], buf, sizeof buf, 0);
    CHECK("SO_SNDTIMEO", k == -1 && errno == EAGAIN);
    close(s[0]);
    close(s[1]);
    pair(s);
    CHECK_EQ("MSG_TRUNC throws away", (send(s[0], "abcdef", 6, 0), recv(s[1], NULL, 4, MSG_TRUNC)), 4);
    CHECK_EQ("the rest", recv(s[1], buf, 9, 0), 2);
    pid_t pid = fork();
    if (!pid) {
        for (int i = 0; i < 3; i++) {
            write(s[0], "part", 4);
            usleep(10000);
        }
        _exit(0);
    }
    CHECK_EQ("MSG_WAITALL", recv(s[1], buf, 12, MSG_WAITALL), 12);
    waitpid(pid, NULL, 0);
    CHECK_EQ("urgent data", send(s[0], "ab!", 3, MSG_OOB), 3);
    CHECK_EQ("POLLPRI", waits(s[1], POLLPRI), POLLPRI);
    CHECK("MSG_OOB", recv(s[1], buf, 8, MSG_OOB) == 1 && buf[0] == '!');
    CHECK_ERRNO("once", recv(s[1], buf, 8, MSG_OOB), EINVAL);
    send(s[0], "cd", 2, 0);
    CHECK_EQ("stops at the mark", recv(s[1], buf, 8, 0), 2);
    CHECK_EQ("SIOCATMARK", (ioctl(s[1], SIOCATMARK, &n), n), 1);
    CHECK_EQ("goes on", recv(s[1], buf, 8, 0), 2);
    CHECK_EQ("past it", (ioctl(s[1], SIOCATMARK, &n), n), 0);
    CHECK_EQ("empty send", send(s[0], buf, 0, 0), 0);
    CHECK_ERRNO("bad buffer", send(s[0], (void *)8, 5, 0), EFAULT);
    CHECK_EQ("sendto ignores the address", sendto(s[0], "x", 1, 0, (struct sockaddr *)buf, 16), 1);
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    CHECK("recvfrom names nobody", recvfrom(s[1], buf, 8, 0, (struct sockaddr *)&from, &len) == 1 && len == 0);
    close(s[0]);
    close(s[1]);
}

static void options(void)
{
    int s[2], port, l = listener(&port, 3);
    set(l, IPPROTO_TCP, TCP_NODELAY, 1);
    set(l, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(l, IPPROTO_TCP, TCP_KEEPIDLE, 77);
    struct sockaddr_in a = at("127.0.0.1", port);
    s[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ("SO_RCVBUF", number(s[0], SOL_SOCKET, SO_RCVBUF), 131072);
    CHECK_EQ("SO_SNDBUF", number(s[0], SOL_SOCKET, SO_SNDBUF), 16384);
    connect(s[0], SA(a));
    s[1] = accept(l, NULL, NULL);
    CHECK_EQ("TCP_NODELAY is inherited", number(s[1], IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_EQ("SO_KEEPALIVE too", number(s[1], SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ("TCP_KEEPIDLE too", number(s[1], IPPROTO_TCP, TCP_KEEPIDLE), 77);
    CHECK_EQ("not the client's", number(s[0], IPPROTO_TCP, TCP_NODELAY), 0);
    CHECK_EQ("keep idle", number(s[0], IPPROTO_TCP, TCP_KEEPIDLE), 7200);
    CHECK_EQ("keep interval", number(s[0], IPPROTO_TCP, TCP_KEEPINTVL), 75);
    CHECK_EQ("keep count", number(s[0], IPPROTO_TCP, TCP_KEEPCNT), 9);
    CHECK_EQ("set it", set(s[0], IPPROTO_TCP, TCP_KEEPCNT, 3), 0);
    CHECK_EQ("is set", number(s[0], IPPROTO_TCP, TCP_KEEPCNT), 3);
    CHECK_ERRNO("too small", set(s[0], IPPROTO_TCP, TCP_KEEPIDLE, 0), EINVAL);
    CHECK_ERRNO("too large", set(s[0], IPPROTO_TCP, TCP_KEEPCNT, 128), EINVAL);
    CHECK_ERRNO("too short", setsockopt(s[0], IPPROTO_TCP, TCP_NODELAY, "a", 1), EINVAL);
    CHECK_EQ("TCP_CORK", set(s[0], IPPROTO_TCP, TCP_CORK, 1), 0);
    CHECK_EQ("TCP_QUICKACK", number(s[0], IPPROTO_TCP, TCP_QUICKACK), 1);
    CHECK_EQ("TCP_USER_TIMEOUT", set(s[0], IPPROTO_TCP, TCP_USER_TIMEOUT, 5000), 0);
    CHECK_EQ("read back", number(s[0], IPPROTO_TCP, TCP_USER_TIMEOUT), 5000);
    CHECK_ERRNO("negative", set(s[0], IPPROTO_TCP, TCP_USER_TIMEOUT, -1), EINVAL);
    CHECK_EQ("TCP_SYNCNT", set(s[0], IPPROTO_TCP, TCP_SYNCNT, 4), 0);
    CHECK_EQ("TCP_LINGER2", set(s[0], IPPROTO_TCP, TCP_LINGER2, 4), 0);
    CHECK_ERRNO("unknown of TCP", set(s[0], IPPROTO_TCP, 999, 1), ENOPROTOOPT);
    CHECK_ERRNO("unknown asked", number(s[0], IPPROTO_TCP, 999), ENOPROTOOPT);
    CHECK_ERRNO("unknown level", set(s[0], 199, 1, 1), ENOPROTOOPT);
    CHECK_ERRNO("unknown of sockets", set(s[0], SOL_SOCKET, 999, 1), ENOPROTOOPT);
    CHECK_ERRNO("SO_TYPE cannot be set", set(s[0], SOL_SOCKET, SO_TYPE, 1), ENOPROTOOPT);
    char name[32];
    socklen_t len = sizeof name;
    CHECK_EQ("TCP_CONGESTION", setsockopt(s[0], IPPROTO_TCP, TCP_CONGESTION, "reno", 4), 0);
    CHECK("its name", !getsockopt(s[0], IPPROTO_TCP, TCP_CONGESTION, name, &len) && len == 16 && !strcmp(name, "reno"));
    CHECK_ERRNO("no such", setsockopt(s[0], IPPROTO_TCP, TCP_CONGESTION, "nonsense", 8), ENOENT);
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    len = sizeof info;
    CHECK_EQ("TCP_INFO", getsockopt(s[0], IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    CHECK_EQ("established", info.tcpi_state, TCP_ESTABLISHED);
    CHECK("with options", info.tcpi_options & TCPI_OPT_WSCALE && info.tcpi_rtt > 0 && info.tcpi_snd_mss > 500);
    len = sizeof info;
    getsockopt(l, IPPROTO_TCP, TCP_INFO, &info, &len);
    CHECK_EQ("of a listener", info.tcpi_state, TCP_LISTEN);
    CHECK_EQ("its backlog", info.tcpi_sacked, 3);
    shutdown(s[1], SHUT_WR);
    len = sizeof info;
    getsockopt(s[0], IPPROTO_TCP, TCP_INFO, &info, &len);
    CHECK_EQ("CLOSE_WAIT", info.tcpi_state, TCP_CLOSE_WAIT);
    len = sizeof info;
    getsockopt(s[1], IPPROTO_TCP, TCP_INFO, &info, &len);
    CHECK("FIN_WAIT", info.tcpi_state == TCP_FIN_WAIT2 || info.tcpi_state == TCP_FIN_WAIT1);
    CHECK_EQ("IP_TOS", set(s[0], IPPROTO_IP, IP_TOS, 0x10), 0);
    CHECK_EQ("read", number(s[0], IPPROTO_IP, IP_TOS), 0x10);
    CHECK_EQ("IP_TTL", number(s[0], IPPROTO_IP, IP_TTL), 64);
    CHECK_ERRNO("ttl 0", set(s[0], IPPROTO_IP, IP_TTL, 0), EINVAL);
    CHECK_ERRNO("ttl 256", set(s[0], IPPROTO_IP, IP_TTL, 256), EINVAL);
    CHECK_EQ("default ttl", set(s[0], IPPROTO_IP, IP_TTL, -1), 0);
    CHECK_ERRNO("IPV6 of IPv4", set(s[0], IPPROTO_IPV6, IPV6_V6ONLY, 1), ENOPROTOOPT);
    CHECK_EQ("SO_LINGER", setsockopt(s[0], SOL_SOCKET, SO_LINGER, &(struct linger){1, 3}, 8), 0);
    struct linger linger;
    len = sizeof linger;
    CHECK("kept", !getsockopt(s[0], SOL_SOCKET, SO_LINGER, &linger, &len) && linger.l_onoff == 1 && linger.l_linger == 3);
    CHECK_EQ("SO_RCVBUF is doubled", (set(s[0], SOL_SOCKET, SO_RCVBUF, 10000), number(s[0], SOL_SOCKET, SO_RCVBUF)), 20000);
    CHECK_EQ("SO_RCVLOWAT", (set(s[0], SOL_SOCKET, SO_RCVLOWAT, 5), number(s[0], SOL_SOCKET, SO_RCVLOWAT)), 5);
    CHECK_EQ("SO_INCOMING_CPU", number(s[0], SOL_SOCKET, SO_INCOMING_CPU) < 64, 1);
    CHECK_ERRNO("bind to no device", setsockopt(s[0], SOL_SOCKET, SO_BINDTODEVICE, "nothing", 8), ENODEV);
    close(s[0]);
    close(s[1]);
    close(l);
    pair(s);
    set(s[1], SOL_SOCKET, SO_RCVLOWAT, 3);
    send(s[0], "ab", 2, 0);
    CHECK_EQ("two are not enough", revents(s[1]), POLLOUT);
    send(s[0], "c", 1, 0);
    CHECK_EQ("three are", waits(s[1], POLLIN), POLLIN);
    close(s[0]);
    close(s[1]);
}

/* A listener with reuse, and both ends of a connection by it; its address. */
static struct sockaddr_in reusing(int *l, int *fd, int *s)
{
    struct sockaddr_in a = at("127.0.0.1", 0);
    *l = socket(AF_INET, SOCK_STREAM, 0);
    set(*l, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(*l, SA(a));
    listen(*l, 2);
    a = at("127.0.0.1", port_of(*l));
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(*fd, SA(a));
    *s = accept(*l, NULL, NULL);
    return a;
}

static void remembered(void)
{
    int port, l = listener(&port, 3), fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at("127.0.0.1", port);
    connect(fd, SA(a));
    int s = accept(l, NULL, NULL);
    close(s);
    char c;
    read(fd, &c, 1);
    close(fd);
    close(l);
    l = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("TIME_WAIT keeps the port", bind(l, SA(a)), EADDRINUSE);
    set(l, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_ERRNO("of a server without reuse", bind(l, SA(a)), EADDRINUSE);
    close(l);
    a = reusing(&l, &fd, &s);
    close(s);
    read(fd, &c, 1);
    close(fd);
    close(l);
    l = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("and with it", bind(l, SA(a)), EADDRINUSE);
    set(l, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_EQ("gives it back", bind(l, SA(a)), 0);
    close(l);
    a = reusing(&l, &fd, &s);
    close(l);
    l = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("an accepted one keeps it", bind(l, SA(a)), EADDRINUSE);
    close(l);
    close(s);
    close(fd);
}

static void six(void)
{
    int l = socket(AF_INET6, SOCK_STREAM, 0), fd;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any}, b;
    struct sockaddr_in four = at("127.0.0.1", 0);
    socklen_t len = sizeof b;
    CHECK_ERRNO("short", bind(l, (struct sockaddr *)&a, 23), EINVAL);
    CHECK_ERRNO("of IPv4", bind(l, (struct sockaddr *)&four, sizeof four), EINVAL);
    CHECK_EQ("V6ONLY", number(l, IPPROTO_IPV6, IPV6_V6ONLY), 0);
    CHECK_EQ("bind", bind(l, SA(a)), 0);
    CHECK_ERRNO("V6ONLY too late", set(l, IPPROTO_IPV6, IPV6_V6ONLY, 1), EINVAL);
    listen(l, 4);
    int port = port_of(l);
    a.sin6_port = htons(port);
    four.sin_port = a.sin6_port;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO("IPv4 is taken too", bind(fd, SA(four)), EADDRINUSE);
    CHECK_EQ("from IPv4", connect(fd, SA(four)), 0);
    int s = accept(l, (struct sockaddr *)&b, &len);
    char text[64];
    inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof text);
    CHECK("is mapped", len == 28 && !strcmp(text, "::ffff:127.0.0.1"));
    getsockname(s, (struct sockaddr *)&b, &len);
    inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof text);
    CHECK("here too", !strcmp(text, "::ffff:127.0.0.1") && ntohs(b.sin6_port) == port);
    CHECK_EQ("carries", (send(fd, "four", 4, 0), recv(s, text, 9, 0)), 4);
    close(s);
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    a.sin6_addr = in6addr_loopback;
    CHECK_EQ("from ::1", connect(fd, SA(a)), 0);
    s = accept(l, (struct sockaddr *)&b, &len);
    CHECK("is ::1", IN6_IS_ADDR_LOOPBACK(&b.sin6_addr));
    close(s);
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr);
    CHECK_EQ("mapped out", connect(fd, SA(a)), 0);
    getpeername(fd, (struct sockaddr *)&b, &len);
    CHECK("stays mapped", IN6_IS_ADDR_V4MAPPED(&b.sin6_addr));
    close(accept(l, NULL, NULL));
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    CHECK_ERRNO("only IPv6 out", connect(fd, SA(a)), ENETUNREACH);
    CHECK_ERRNO("only IPv6 here", bind(fd, SA(a)), EINVAL);
    close(fd);
    close(l);
    l = socket(AF_INET6, SOCK_STREAM, 0);
    set(l, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    a.sin6_addr = in6addr_any;
    a.sin6_port = 0;
    bind(l, SA(a));
    listen(l, 1);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    four = at("127.0.0.1", port_of(l));
    CHECK_ERRNO("deaf to IPv4", connect(fd, SA(four)), ECONNREFUSED);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    four.sin_addr.s_addr = 0;
    CHECK_EQ("both may have the port", bind(fd, SA(four)), 0);
    close(fd);
    CHECK_EQ("IPV6_UNICAST_HOPS", number(l, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
    CHECK_EQ("IPV6_TCLASS", set(l, IPPROTO_IPV6, IPV6_TCLASS, 0x20), 0);
    CHECK_EQ("IP_TTL of IPv6", number(l, IPPROTO_IP, IP_TTL), 64);
    close(l);
}

static int client(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at("127.0.0.1", port);
    connect(fd, SA(a));
    return fd;
}

static void *knock(void *port)
{
    usleep(20000);
    for (int i = 0; i < 200; i++) {
        int fd = client((long)port);
        char c = i, got;
        write(fd, &c, 1);
        if (read(fd, &got, 1) != 1 || got != c)
            return (void *)1;
        close(fd);
    }
    return NULL;
}

static void crowd(void)
{
    int port, l = listener(&port, 128);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(threads + i, NULL, knock, (void *)(long)port);
    for (int i = 0; i < 800; i++) {
        int s = accept(l, NULL, NULL);
        char c;
        read(s, &c, 1);
        write(s, &c, 1);
        read(s, &c, 1);
        close(s);
    }
    long wrong = 0;
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    CHECK_EQ("eight hundred connections", wrong, 0);
    int fds[64];
    for (int i = 0; i < 64; i++)
        fds[i] = client(port);
    int ports = 0;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < i; j++)
            ports += port_of(fds[i]) == port_of(fds[j]);
    CHECK_EQ("each from a port of its own", ports, 0);
    for (int i = 0; i < 64; i++)
        close(fds[i]);
    close(l);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    creation();
    binding();
    connecting();
    halves();
    resets();
    flow();
    options();
    remembered();
    six();
    crowd();
    return finish();
}
