/* UDP over the loopback. */
#include "check.h"
#include "inet.h"
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <linux/sockios.h>

static struct sockaddr_in name_of(int fd)
{
    struct sockaddr_in a = {0};
    socklen_t len = sizeof a;
    getsockname(fd, (struct sockaddr *)&a, &len);
    return a;
}

static int bound(const char *ip)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = at(ip, 0);
    bind(fd, SA(a));
    return fd;
}

static void basics(void)
{
    int a = bound("127.0.0.1"), b = bound("127.0.0.1"), n;
    struct sockaddr_in to = name_of(b), from;
    socklen_t len = sizeof from;
    char buf[64];
    CHECK_EQ("fresh", revents(a), POLLOUT);
    CHECK_EQ("SO_TYPE", number(a, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
    CHECK_EQ("SO_PROTOCOL", number(a, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
    CHECK_ERRNO("nothing", recv(a, buf, 64, 0), EAGAIN);
    CHECK_EQ("sendto", sendto(a, "hello", 5, 0, SA(to)), 5);
    CHECK_EQ("readable", revents(b), POLLIN | POLLOUT);
    CHECK_EQ("FIONREAD", (ioctl(b, FIONREAD, &n), n), 5);
    CHECK_EQ("peek", recvfrom(b, buf, 64, MSG_PEEK, (struct sockaddr *)&from, &len), 5);
    CHECK("its sender", len == 16 && from.sin_port == name_of(a).sin_port && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK_EQ("cut", recv(b, buf, 3, MSG_TRUNC), 5);
    CHECK_EQ("empty", sendto(a, "", 0, 0, SA(to)), 0);
    CHECK_EQ("is one too", revents(b), POLLIN | POLLOUT);
    CHECK_EQ("received", recv(b, buf, 64, 0), 0);
    CHECK_ERRNO("no destination", send(a, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERRNO("short address", sendto(a, "x", 1, 0, (struct sockaddr *)&to, 15), EINVAL);
    struct sockaddr_in bad = to;
    bad.sin_family = AF_UNIX;
    CHECK_ERRNO("another family", sendto(a, "x", 1, 0, SA(bad)), EAFNOSUPPORT);
    bad.sin_family = AF_UNSPEC;
    CHECK_EQ("no family", sendto(a, "x", 1, 0, SA(bad)), 1);
    recv(b, buf, 9, 0);
    bad = at("127.0.0.1", 0);
    CHECK_ERRNO("port 0", sendto(a, "x", 1, 0, SA(bad)), EINVAL);
    static char big[70000];
    CHECK_ERRNO("too large", sendto(a, big, 65508, 0, SA(to)), EMSGSIZE);
    CHECK_ERRNO("far too large", sendto(a, big, 70000, 0, SA(to)), EMSGSIZE);
    CHECK_EQ("as large as can be", sendto(a, big, 65507, 0, SA(to)), 65507);
    CHECK_EQ("arrives", recv(b, big, 70000, 0), 65507);
    CHECK_ERRNO("out of band", sendto(a, "x", 1, MSG_OOB, SA(to)), EOPNOTSUPP);
    CHECK_ERRNO("bad memory", sendto(a, (void *)8, 5, 0, SA(to)), EFAULT);
    CHECK_ERRNO("listen", listen(a, 1), EOPNOTSUPP);
    CHECK_ERRNO("accept", accept(a, NULL, NULL), EOPNOTSUPP);
    CHECK_ERRNO("getpeername", getpeername(a, (struct sockaddr *)&from, &len), ENOTCONN);
    bad = at("255.255.255.255", 9);
    CHECK_ERRNO("broadcast", sendto(a, "x", 1, 0, SA(bad)), EACCES);
    int c = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ("unbound", name_of(c).sin_port, 0);
    CHECK_EQ("sends", sendto(c, "y", 1, 0, SA(to)), 1);
    CHECK("from a port", ntohs(name_of(c).sin_port) >= 1024 && name_of(c).sin_addr.s_addr == 0);
    len = sizeof from;
    recvfrom(b, buf, 9, 0, (struct sockaddr *)&from, &len);
    CHECK("of the loopback", from.sin_port == name_of(c).sin_port && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK_ERRNO("bind after", bind(c, SA(to)), EINVAL);
    close(a);
    close(b);
    close(c);
}

static void connected(void)
{
    int a = bound("127.0.0.1"), b = bound("127.0.0.1"), c = bound("127.0.0.1");
    struct sockaddr_in to = name_of(b), me = name_of(a), peer, none = {.sin_family = AF_UNSPEC};
    socklen_t len = sizeof peer;
    char buf[64];
    CHECK_EQ("connect", connect(a, SA(to)), 0);
    CHECK("getpeername", !getpeername(a, (struct sockaddr *)&peer, &len) && peer.sin_port == to.sin_port);
    sendto(c, "stranger", 8, 0, SA(me));
    CHECK_ERRNO("hears no strangers", recv(a, buf, 64, 0), EAGAIN);
    sendto(b, "peer", 4, 0, SA(me));
    CHECK_EQ("hears its peer", recv(a, buf, 64, 0), 4);
    CHECK_EQ("send", send(a, "x", 1, 0), 1);
    CHECK_EQ("write", write(a, "yz", 2), 2);
    CHECK_EQ("read", (recv(b, buf, 9, 0), read(b, buf, 9)), 2);
    struct sockaddr_in other = name_of(c);
    CHECK_EQ("to another all the same", sendto(a, "w", 1, 0, SA(other)), 1);
    CHECK_EQ("got it", recv(c, buf, 9, 0), 1);
    CHECK_EQ("connect elsewhere", connect(a, SA(other)), 0);
    CHECK_EQ("connect back", connect(a, SA(to)), 0);
    close(b);
    CHECK_EQ("to nobody", send(a, "x", 1, 0), 1);
    CHECK_EQ("is an error", revents(a), POLLOUT | POLLERR);
    CHECK_EQ("SO_ERROR", number(a, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_EQ("is taken", revents(a), POLLOUT);
    send(a, "x", 1, 0);
    CHECK_ERRNO("send tells it", send(a, "x", 1, 0), ECONNREFUSED);
    CHECK_EQ("then sends", send(a, "x", 1, 0), 1);
    CHECK_ERRNO("recv tells it", recv(a, buf, 9, 0), ECONNREFUSED);
    CHECK_ERRNO("once", recv(a, buf, 9, 0), EAGAIN);
    CHECK_EQ("disconnect", connect(a, SA(none)), 0);
    CHECK_ERRNO("has no peer", send(a, "x", 1, 0), EDESTADDRREQ);
    CHECK_EQ("nobody tells the unconnected", sendto(a, "x", 1, 0, SA(to)), 1);
    CHECK_EQ("no error", revents(a), POLLOUT);
    int d = socket(AF_INET, SOCK_DGRAM, 0);
    connect(d, SA(me));
    CHECK("connect gives an address", name_of(d).sin_port && name_of(d).sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    connect(d, SA(none));
    CHECK("and takes it back", !name_of(d).sin_port && !name_of(d).sin_addr.s_addr);
    CHECK_ERRNO("shutdown without a peer", shutdown(d, SHUT_RD), ENOTCONN);
    close(d);
    d = socket(AF_INET, SOCK_DGRAM, 0);
    connect(d, SA(me));
    CHECK_EQ("shutdown", shutdown(d, SHUT_RDWR), 0);
    CHECK_EQ("hangs up", revents(d), POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
    CHECK_EQ("an end", recv(d, buf, 9, 0), 0);
    CHECK_ERRNO("mute", send(d, "x", 1, MSG_NOSIGNAL), EPIPE);
    close(d);
    close(a);
    close(c);
}

static void sharing(void)
{
    int a = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), b = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in any = at("0.0.0.0", 0);
    set(a, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_EQ("bind", bind(a, SA(any)), 0);
    any.sin_port = name_of(a).sin_port;
    CHECK_ERRNO("taken", bind(b, SA(any)), EADDRINUSE);
    struct sockaddr_in one = at("127.0.0.1", ntohs(any.sin_port));
    CHECK_ERRNO("of one address", bind(b, SA(one)), EADDRINUSE);
    set(b, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_EQ("reuse", bind(b, SA(one)), 0);
    int c = bound("127.0.0.1");
    char buf[9];
    sendto(c, "x", 1, 0, SA(one));
    CHECK_EQ("the exact one gets it", recv(b, buf, 9, 0), 1);
    CHECK_ERRNO("not the other", recv(a, buf, 9, 0), EAGAIN);
    one.sin_addr.s_addr = inet_addr("127.0.0.5");
    sendto(c, "x", 1, 0, SA(one));
    CHECK_EQ("the rest is the other's", recv(a, buf, 9, 0), 1);
    close(a);
    close(b);
    int s[2];
    for (int i = 0; i < 2; i++) {
        s[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        set(s[i], SOL_SOCKET, SO_REUSEPORT, 1);
        CHECK_EQ(i ? "SO_REUSEPORT second" : "SO_REUSEPORT first", bind(s[i], SA(any)), 0);
    }
    one = at("127.0.0.1", ntohs(any.sin_port));
    int got[2] = {0, 0};
    for (int i = 0; i < 64; i++) {
        int d = bound("127.0.0.1");
        sendto(d, "x", 1, 0, SA(one));
        close(d);
    }
    for (int i = 0; i < 2; i++)
        while (recv(s[i], buf, 9, 0) == 1)
            got[i]++;
    CHECK("spread over both", got[0] > 5 && got[1] > 5 && got[0] + got[1] == 64);
    close(s[0]);
    close(s[1]);
    a = bound("127.0.0.1");
    one = name_of(a);
    for (int i = 0; i < 2000; i++)
        sendto(c, "x", 1, 0, SA(one));
    int n = 0;
    while (recv(a, buf, 9, 0) == 1)
        n++;
    CHECK("a queue is bounded", n > 200 && n < 400);
    close(a);
    close(c);
}

struct control {
    struct msghdr msg;
    struct iovec iov;
    char data[64];
    struct sockaddr_in6 name;
    union {
        struct cmsghdr align;
        char bytes[512];
    } control;
};

static struct msghdr *prepare(struct control *c)
{
    c->iov = (struct iovec){c->data, sizeof c->data};
    c->msg = (struct msghdr){.msg_name = &c->name, .msg_namelen = sizeof c->name, .msg_iov = &c->iov, .msg_iovlen = 1, .msg_control = c->control.bytes, .msg_controllen = sizeof c->control.bytes};
    return &c->msg;
}

static void *find(struct control *c, int level, int type)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&c->msg); h; h = CMSG_NXTHDR(&c->msg, h))
        if (h->cmsg_level == level && h->cmsg_type == type)
            return CMSG_DATA(h);
    return NULL;
}

static void control_data(void)
{
    static struct control c;
    int a = bound("127.0.0.1"), b = bound("0.0.0.0");
    struct sockaddr_in to = at("127.0.0.7", ntohs(name_of(b).sin_port));
    CHECK_EQ("IP_PKTINFO", set(b, IPPROTO_IP, IP_PKTINFO, 1), 0);
    CHECK_EQ("IP_RECVTTL", set(b, IPPROTO_IP, IP_RECVTTL, 1), 0);
    CHECK_EQ("IP_RECVTOS", set(b, IPPROTO_IP, IP_RECVTOS, 1), 0);
    CHECK_EQ("IP_RECVORIGDSTADDR", set(b, IPPROTO_IP, IP_RECVORIGDSTADDR, 1), 0);
    CHECK_EQ("SO_TIMESTAMP", set(b, SOL_SOCKET, SO_TIMESTAMP, 1), 0);
    set(a, IPPROTO_IP, IP_TTL, 33);
    set(a, IPPROTO_IP, IP_TOS, 0x20);
    sendto(a, "x", 1, 0, SA(to));
    CHECK_EQ("recvmsg", recvmsg(b, prepare(&c), 0), 1);
    struct in_pktinfo *info = find(&c, IPPROTO_IP, IP_PKTINFO);
    CHECK("packet info", info && info->ipi_ifindex == 1 && info->ipi_addr.s_addr == inet_addr("127.0.0.7"));
    int *ttl = find(&c, IPPROTO_IP, IP_TTL);
    CHECK("ttl", ttl && *ttl == 33);
    unsigned char *tos = find(&c, IPPROTO_IP, IP_TOS);
    CHECK("tos", tos && *tos == 0x20);
    struct sockaddr_in *orig = find(&c, IPPROTO_IP, IP_ORIGDSTADDR);
    CHECK("original destination", orig && orig->sin_port == to.sin_port && orig->sin_addr.s_addr == to.sin_addr.s_addr);
    struct timeval *when = find(&c, SOL_SOCKET, SO_TIMESTAMP), now;
    gettimeofday(&now, NULL);
    CHECK("timestamp", when && now.tv_sec - when->tv_sec < 5 && now.tv_sec >= when->tv_sec);
    set(b, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    prepare(&c);
    c.name.sin6_family = 0;
    memcpy(&c.name, &to, sizeof to);
    c.msg.msg_namelen = sizeof to;
    c.iov.iov_len = 1;
    struct cmsghdr *h = CMSG_FIRSTHDR(&c.msg);
    *h = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_TTL, .cmsg_len = CMSG_LEN(4)};
    *(int *)CMSG_DATA(h) = 44;
    c.msg.msg_controllen = CMSG_SPACE(4);
    CHECK_EQ("sendmsg with a ttl", sendmsg(a, &c.msg, 0), 1);
    *(int *)CMSG_DATA(h) = 0;
    CHECK_ERRNO("of zero", sendmsg(a, &c.msg, 0), EINVAL);
    h->cmsg_type = 77;
    CHECK_ERRNO("of no such kind", sendmsg(a, &c.msg, 0), EINVAL);
    recvmsg(b, prepare(&c), 0);
    ttl = find(&c, IPPROTO_IP, IP_TTL);
    CHECK("it is told", ttl && *ttl == 44);
    CHECK("in nanoseconds", find(&c, SOL_SOCKET, SO_TIMESTAMPNS));
    c.msg.msg_controllen = 20;
    sendto(a, "x", 1, 0, SA(to));
    CHECK_EQ("control data is cut", (recvmsg(b, &c.msg, 0), c.msg.msg_flags & MSG_CTRUNC), MSG_CTRUNC);
    close(b);
    CHECK_EQ("IP_RECVERR", set(a, IPPROTO_IP, IP_RECVERR, 1), 0);
    CHECK_ERRNO("no error yet", recvmsg(a, prepare(&c), MSG_ERRQUEUE), EAGAIN);
    sendto(a, "lost", 4, 0, SA(to));
    CHECK_EQ("an error", revents(a), POLLOUT | POLLERR);
    CHECK_EQ("MSG_ERRQUEUE", recvmsg(a, prepare(&c), MSG_ERRQUEUE), 4);
    struct sock_extended_err *err = find(&c, IPPROTO_IP, IP_RECVERR);
    CHECK("refused", err && err->ee_errno == ECONNREFUSED && err->ee_origin == SO_EE_ORIGIN_ICMP && err->ee_type == 3 && err->ee_code == 3);
    CHECK("by whom", err && ((struct sockaddr_in *)SO_EE_OFFENDER(err))->sin_addr.s_addr == to.sin_addr.s_addr);
    CHECK("about what", !memcmp(c.data, "lost", 4) && ((struct sockaddr_in *)&c.name)->sin_port == to.sin_port);
    CHECK_EQ("flags", c.msg.msg_flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
    CHECK_EQ("gone", revents(a), POLLOUT);
    close(a);
}

static void batches(void)
{
    int a = bound("127.0.0.1"), b = bound("127.0.0.1");
    struct sockaddr_in to = name_of(b);
    char in[3][16];
    struct iovec out[2] = {{"one", 3}, {"second", 6}}, into[3] = {{in[0], 16}, {in[1], 4}, {in[2], 16}};
    struct mmsghdr m[3] = {{{.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = out, .msg_iovlen = 1}}, {{.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = out + 1, .msg_iovlen = 1}}};
    CHECK_EQ("sendmmsg", sendmmsg(a, m, 2, 0), 2);
    for (int i = 0; i < 3; i++)
        m[i] = (struct mmsghdr){{.msg_iov = into + i, .msg_iovlen = 1}};
    CHECK_EQ("recvmmsg", recvmmsg(b, m, 3, MSG_WAITFORONE, NULL), 2);
    CHECK("lengths", m[0].msg_len == 3 && m[1].msg_len == 4 && m[1].msg_hdr.msg_flags == MSG_TRUNC);
    connect(a, SA(to));
    CHECK_EQ("UDP_CORK", set(a, IPPROTO_UDP, UDP_CORK, 1), 0);
    send(a, "to", 2, 0);
    send(a, "gether", 6, 0);
    CHECK_ERRNO("nothing yet", recv(b, in[0], 16, 0), EAGAIN);
    set(a, IPPROTO_UDP, UDP_CORK, 0);
    send(a, "!", 1, MSG_MORE);
    CHECK_EQ("one of several", (send(a, "?", 1, 0), recv(b, in[0], 16, 0)) > 1, 1);
    while (recv(b, in[0], 16, 0) > 0)
        ;
    CHECK_EQ("UDP_SEGMENT", set(a, IPPROTO_UDP, UDP_SEGMENT, 3), 0);
    send(a, "abcdefgh", 8, 0);
    int lens[4], n = 0;
    while (n < 4 && (lens[n] = recv(b, in[0], 16, 0)) > 0)
        n++;
    CHECK("makes several of one", n == 3 && lens[0] == 3 && lens[1] == 3 && lens[2] == 2);
    CHECK_ERRNO("no such option", set(a, IPPROTO_UDP, 999, 1), ENOPROTOOPT);
    close(a);
    close(b);
}

static void groups(void)
{
    int a = bound("127.0.0.1"), b = bound("0.0.0.0");
    struct ip_mreq join = {.imr_multiaddr.s_addr = inet_addr("224.1.2.3"), .imr_interface.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = at("224.1.2.3", ntohs(name_of(b).sin_port));
    struct in_addr lo = {htonl(INADDR_LOOPBACK)};
    char buf[9];
    CHECK_EQ("join", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join), 0);
    CHECK_ERRNO("join twice", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join), EADDRINUSE);
    CHECK_EQ("IP_MULTICAST_IF", setsockopt(a, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo), 0);
    CHECK_EQ("IP_MULTICAST_TTL", number(a, IPPROTO_IP, IP_MULTICAST_TTL), 1);
    CHECK_EQ("IP_MULTICAST_LOOP", number(a, IPPROTO_IP, IP_MULTICAST_LOOP), 1);
    CHECK_EQ("to a group", sendto(a, "x", 1, 0, SA(to)), 1);
    CHECK_EQ("is heard", recv(b, buf, 9, 0), 1);
    CHECK_EQ("leave", setsockopt(b, IPPROTO_IP, IP_DROP_MEMBERSHIP, &join, sizeof join), 0);
    CHECK_ERRNO("leave twice", setsockopt(b, IPPROTO_IP, IP_DROP_MEMBERSHIP, &join, sizeof join), EADDRNOTAVAIL);
    sendto(a, "x", 1, 0, SA(to));
    CHECK_ERRNO("is heard no more", recv(b, buf, 9, 0), EAGAIN);
    join.imr_multiaddr.s_addr = inet_addr("10.1.2.3");
    CHECK_ERRNO("no group", setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join), EINVAL);
    close(a);
    close(b);
}

static void six(void)
{
    int a = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0), b = bound("127.0.0.1");
    struct sockaddr_in6 any = {.sin6_family = AF_INET6}, from, to = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    static struct control c;
    char buf[64];
    socklen_t len = sizeof from;
    CHECK_EQ("bind", bind(a, SA(any)), 0);
    set(a, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set(a, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
    struct sockaddr_in four = at("127.0.0.1", ntohs(name_of(a).sin_port));
    sendto(b, "four", 4, 0, SA(four));
    CHECK_EQ("from IPv4", recvfrom(a, buf, 64, 0, (struct sockaddr *)&from, &len), 4);
    CHECK("mapped", len == 28 && IN6_IS_ADDR_V4MAPPED(&from.sin6_addr) && from.sin6_port == name_of(b).sin_port);
    CHECK_EQ("answer", sendto(a, "back", 4, 0, (struct sockaddr *)&from, len), 4);
    CHECK_EQ("heard", recv(b, buf, 64, 0), 4);
    four = name_of(b);
    CHECK_EQ("to an address of IPv4", sendto(a, "direct", 6, 0, SA(four)), 6);
    CHECK_EQ("heard too", recv(b, buf, 64, 0), 6);
    to.sin6_port = name_of(a).sin_port;
    CHECK_EQ("to oneself", sendto(a, "self", 4, 0, SA(to)), 4);
    CHECK_EQ("recvmsg", recvmsg(a, prepare(&c), 0), 4);
    struct in6_pktinfo *info = find(&c, IPPROTO_IPV6, IPV6_PKTINFO);
    CHECK("packet info", info && info->ipi6_ifindex == 1 && IN6_IS_ADDR_LOOPBACK(&info->ipi6_addr));
    int *hops = find(&c, IPPROTO_IPV6, IPV6_HOPLIMIT);
    CHECK("hop limit", hops && *hops == 64);
    close(a);
    a = socket(AF_INET6, SOCK_DGRAM, 0);
    set(a, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    CHECK_ERRNO("only IPv6", sendto(a, "x", 1, 0, (struct sockaddr *)&from, len), ENETUNREACH);
    close(a);
    close(b);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    basics();
    connected();
    sharing();
    control_data();
    batches();
    groups();
    six();
    return finish();
}
