/* pipes, epoll, poll, select, eventfd, timerfd, inotify, Unix sockets: pipe(7), epoll(7), unix(7), ... */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

static void pipes(void)
{
    int p[2];
    char buf[70000] = "";
    CHECK_EQ("pipe2", pipe2(p, O_NONBLOCK), 0);
    CHECK_ERRNO("empty", read(p[0], buf, 1), EAGAIN);
    CHECK_EQ("write", write(p[1], "abc", 3), 3);
    int pending;
    CHECK_EQ("FIONREAD", (ioctl(p[0], FIONREAD, &pending), pending), 3);
    CHECK_EQ("read part", read(p[0], buf, 2), 2);
    CHECK_EQ("read the rest", read(p[0], buf, 10), 1);
    CHECK_EQ("capacity", fcntl(p[1], F_GETPIPE_SZ), 65536);
    CHECK_EQ("takes its capacity", write(p[1], buf, 70000), 65536);
    CHECK_ERRNO("full", write(p[1], buf, 1), EAGAIN);
    CHECK_EQ("read a page", read(p[0], buf, 4096), 4096);
    CHECK_ERRNO("a large write is not split when small enough", (write(p[1], buf, 4096), write(p[1], buf, 4096)), EAGAIN);
    CHECK_ERRNO("seek", lseek(p[0], 0, SEEK_CUR), ESPIPE);
    CHECK_ERRNO("pread", pread(p[0], buf, 1, 0), ESPIPE);
    CHECK_ERRNO("read the writing end", read(p[1], buf, 1), EBADF);
    CHECK_ERRNO("write the reading end", write(p[0], buf, 1), EBADF);
    close(p[1]);
    long total = 0, n;
    while ((n = read(p[0], buf, sizeof buf)) > 0)
        total += n;
    CHECK_EQ("drained", total, 65536);
    CHECK_EQ("then the end", n, 0);
    close(p[0]);
    CHECK_ERRNO("pipe2 bad flags", pipe2(p, 0x40), EINVAL);
    CHECK_ERRNO("pipe bad pointer", pipe((int *)1), EFAULT);
    pipe(p);
    struct stat st;
    fstat(p[0], &st);
    CHECK("is a fifo", S_ISFIFO(st.st_mode));
    pid_t pid = fork();
    if (!pid) {
        close(p[0]);
        for (int i = 0; i < 1000; i++)
            write(p[1], buf, 1000);
        _exit(0);
    }
    close(p[1]);
    for (total = 0; (n = read(p[0], buf, sizeof buf)) > 0;)
        total += n;
    CHECK_EQ("a million bytes through", total, 1000000);
    waitpid(pid, NULL, 0);
    close(p[0]);
}

static void readiness(void)
{
    int p[2];
    pipe(p);
    struct pollfd fds[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {999, POLLIN, 0}};
    CHECK_EQ("poll", poll(fds, 3, 0), 2);
    CHECK("who is ready", !fds[0].revents && fds[1].revents == POLLOUT && fds[2].revents == POLLNVAL);
    fds[2].fd = -1;
    CHECK_EQ("negative descriptors are skipped", poll(fds, 3, 0), 1);
    CHECK_EQ("poll times out", poll(fds, 1, 5), 0);
    write(p[1], "x", 1);
    CHECK_EQ("poll readable", poll(fds, 1, -1), 1);
    close(p[1]);
    CHECK_EQ("hang-up with data", (poll(fds, 1, 0), fds[0].revents), POLLIN | POLLHUP);
    close(p[0]);
    pipe(p);
    close(p[0]);
    fds[1].fd = p[1];
    CHECK_EQ("no reader", (poll(fds + 1, 1, 0), fds[1].revents), POLLOUT | POLLERR);
    close(p[1]);
    pipe(p);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    struct timeval brief = {0, 1000};
    CHECK_EQ("select times out", select(p[0] + 1, &set, NULL, NULL, &brief), 0);
    FD_SET(p[1], &set);
    CHECK_EQ("select writable", select(p[1] + 1, NULL, &set, NULL, NULL), 1);
    CHECK("bit is set", FD_ISSET(p[1], &set));
    FD_ZERO(&set);
    FD_SET(50, &set);
    CHECK_ERRNO("select of nothing", select(51, &set, NULL, NULL, &brief), EBADF);
    CHECK_ERRNO("select negative", select(-1, NULL, NULL, NULL, &brief), EINVAL);
    close(p[0]);
    close(p[1]);
}

static void epolls(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), p[2];
    pipe(p);
    struct epoll_event event = {EPOLLIN, {.u64 = 7}}, got[4];
    CHECK_EQ("add", epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &event), 0);
    CHECK_ERRNO("add twice", epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &event), EEXIST);
    CHECK_ERRNO("modify a stranger", epoll_ctl(ep, EPOLL_CTL_MOD, p[1], &event), ENOENT);
    CHECK_ERRNO("add itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, &event), EINVAL);
    CHECK_ERRNO("no epoll", epoll_ctl(p[0], EPOLL_CTL_ADD, p[1], &event), EINVAL);
    int file = open(".", O_RDONLY);
    CHECK_ERRNO("a directory", epoll_ctl(ep, EPOLL_CTL_ADD, file, &event), EPERM);
    close(file);
    CHECK_ERRNO("no events wanted", epoll_wait(ep, got, 0, 0), EINVAL);
    CHECK_EQ("nothing yet", epoll_wait(ep, got, 4, 0), 0);
    write(p[1], "xy", 2);
    CHECK_EQ("ready", epoll_wait(ep, got, 4, -1), 1);
    CHECK("event and data", got[0].events == EPOLLIN && got[0].data.u64 == 7);
    CHECK_EQ("level-triggered again", epoll_wait(ep, got, 4, 0), 1);
    event.events = EPOLLIN | EPOLLET;
    epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event);
    CHECK_EQ("edge once", epoll_wait(ep, got, 4, 0), 1);
    CHECK_EQ("and no more", epoll_wait(ep, got, 4, 0), 0);
    write(p[1], "z", 1);
    CHECK_EQ("until the next", epoll_wait(ep, got, 4, 0), 1);
    event.events = EPOLLIN | EPOLLONESHOT;
    epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event);
    CHECK_EQ("one shot", epoll_wait(ep, got, 4, 0), 1);
    write(p[1], "z", 1);
    CHECK_EQ("is one", epoll_wait(ep, got, 4, 0), 0);
    epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event);
    CHECK_EQ("armed again", epoll_wait(ep, got, 4, 0), 1);
    int outer = epoll_create1(0);
    event.events = EPOLLIN;
    CHECK_EQ("nested", epoll_ctl(outer, EPOLL_CTL_ADD, ep, &event), 0);
    CHECK_ERRNO("loops are refused", epoll_ctl(ep, EPOLL_CTL_ADD, outer, &event), ELOOP);
    epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &event);
    CHECK_EQ("readiness nests", epoll_wait(outer, got, 4, 0), 1);
    CHECK_EQ("delete", epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL), 0);
    CHECK_EQ("gone", epoll_wait(ep, got, 4, 0), 0);
    event.events = EPOLLIN;
    epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &event);
    close(p[1]);
    CHECK_EQ("hang-up unasked", (epoll_wait(ep, got, 4, 0), got[0].events), EPOLLIN | EPOLLHUP);
    close(p[0]);
    CHECK_EQ("closing removes", epoll_wait(ep, got, 4, 0), 0);
    close(outer);
    close(ep);
}

static void events(void)
{
    int fd = eventfd(3, EFD_NONBLOCK);
    uint64_t value = 4;
    CHECK_EQ("eventfd write", write(fd, &value, 8), 8);
    CHECK_EQ("eventfd read", read(fd, &value, 8), 8);
    CHECK_EQ("sum", value, 7);
    CHECK_ERRNO("eventfd empty", read(fd, &value, 8), EAGAIN);
    CHECK_ERRNO("eventfd short", read(fd, &value, 4), EINVAL);
    value = UINT64_MAX;
    CHECK_ERRNO("eventfd forbidden value", write(fd, &value, 8), EINVAL);
    value = UINT64_MAX - 1;
    CHECK_EQ("eventfd full", write(fd, &value, 8), 8);
    value = 1;
    CHECK_ERRNO("eventfd overflow", write(fd, &value, 8), EAGAIN);
    close(fd);
    fd = eventfd(2, EFD_SEMAPHORE);
    CHECK_EQ("semaphore reads one", (read(fd, &value, 8), value), 1);
    close(fd);
    fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    CHECK_ERRNO("timerfd not armed", read(fd, &value, 8), EAGAIN);
    struct itimerspec spec = {{0, 1000000}, {0, 1000000}};
    CHECK_EQ("timerfd_settime", timerfd_settime(fd, 0, &spec, NULL), 0);
    struct pollfd ready = {fd, POLLIN, 0};
    CHECK_EQ("timerfd ready", poll(&ready, 1, 1000), 1);
    usleep(5000);
    CHECK_EQ("timerfd read", read(fd, &value, 8), 8);
    CHECK("counts expirations", value >= 2);
    spec.it_value.tv_nsec = 0;
    CHECK_EQ("disarm", timerfd_settime(fd, 0, &spec, NULL), 0);
    CHECK_ERRNO("timerfd bad clock", timerfd_create(99, 0), EINVAL);
    close(fd);
    fd = inotify_init1(IN_NONBLOCK);
    int watch = inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE);
    CHECK("inotify watch", watch > 0);
    close(open("watched", O_CREAT | O_WRONLY, 0600));
    unlink("watched");
    char buf[512];
    struct inotify_event *event = (struct inotify_event *)buf;
    CHECK_EQ("two events", read(fd, buf, sizeof buf), 2 * (sizeof *event + 16));
    CHECK("created", event->wd == watch && event->mask == IN_CREATE && !strcmp(event->name, "watched"));
    CHECK_EQ("inotify_rm_watch", inotify_rm_watch(fd, watch), 0);
    CHECK_ERRNO("unknown watch", inotify_rm_watch(fd, 99), EINVAL);
    close(fd);
}

static int send_fd(int socket, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = "", byte = 'f';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    return sendmsg(socket, &msg, 0);
}

static int receive_fd(int socket)
{
    char control[CMSG_SPACE(sizeof(int))] = "", byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    if (recvmsg(socket, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
    return fd;
}

static void sockets(void)
{
    int s[2];
    char buf[64] = "";
    CHECK_EQ("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    CHECK_EQ("send", send(s[0], "abc", 3, 0), 3);
    CHECK_EQ("peek", recv(s[1], buf, 9, MSG_PEEK), 3);
    CHECK_EQ("receive", recv(s[1], buf, 2, 0), 2);
    CHECK_EQ("the rest", recv(s[1], buf, 9, 0), 1);
    CHECK_ERRNO("MSG_DONTWAIT", recv(s[1], buf, 9, MSG_DONTWAIT), EAGAIN);
    CHECK_EQ("shutdown", shutdown(s[0], SHUT_WR), 0);
    CHECK_EQ("the end", recv(s[1], buf, 9, 0), 0);
    CHECK_ERRNO("shutdown bad how", shutdown(s[0], 9), EINVAL);
    int p[2];
    pipe(p);
    CHECK_EQ("send a descriptor", send_fd(s[1], p[1]), 1);
    int fd = receive_fd(s[0]);
    CHECK("receive it", fd >= 0 && fd != p[1]);
    write(fd, "via", 3);
    CHECK_EQ("it is the same pipe", read(p[0], buf, 9), 3);
    close(s[0]);
    CHECK_ERRNO("send to a closed peer", send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    close(s[1]);
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "socket"};
    CHECK_ERRNO("connect to nothing", connect(client, (struct sockaddr *)&addr, sizeof addr), ENOENT);
    CHECK_EQ("bind", bind(server, (struct sockaddr *)&addr, sizeof addr), 0);
    struct stat st;
    stat("socket", &st);
    CHECK("made a socket inode", S_ISSOCK(st.st_mode));
    CHECK_ERRNO("open it", open("socket", O_RDWR), ENXIO);
    CHECK_ERRNO("bind again", bind(client, (struct sockaddr *)&addr, sizeof addr), EADDRINUSE);
    CHECK_ERRNO("not listening", connect(client, (struct sockaddr *)&addr, sizeof addr), ECONNREFUSED);
    CHECK_EQ("listen", listen(server, 5), 0);
    CHECK_EQ("connect", connect(client, (struct sockaddr *)&addr, sizeof addr), 0);
    int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    CHECK("accept", accepted >= 0);
    struct ucred cred;
    socklen_t len = sizeof cred;
    CHECK_EQ("SO_PEERCRED", getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &cred, &len), 0);
    CHECK("is us", cred.pid == getpid() && cred.uid == getuid());
    len = sizeof addr;
    CHECK_EQ("getpeername", getpeername(client, (struct sockaddr *)&addr, &len), 0);
    CHECK("is the listener", !strcmp(addr.sun_path, "socket"));
    write(client, "hi", 2);
    CHECK_EQ("through it", read(accepted, buf, 9), 2);
    close(client);
    close(accepted);
    close(server);
    addr = (struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = "\0rampart-guest-test"};
    len = offsetof(struct sockaddr_un, sun_path) + 19;
    server = socket(AF_UNIX, SOCK_DGRAM, 0);
    client = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_EQ("bind abstract", bind(server, (struct sockaddr *)&addr, len), 0);
    CHECK_EQ("sendto", sendto(client, "datagram", 8, 0, (struct sockaddr *)&addr, len), 8);
    CHECK_EQ("cut", recv(server, buf, 4, MSG_TRUNC), 8);
    CHECK_ERRNO("send without a peer", send(client, "x", 1, 0), ENOTCONN);
    close(client);
    close(server);
    CHECK_ERRNO("wrong protocol", socket(AF_UNIX, SOCK_STREAM, 99), EPROTONOSUPPORT);
    CHECK_ERRNO("wrong type", socket(AF_UNIX, 99, 0), EINVAL);
    CHECK_ERRNO("wrong family", socket(999, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO("not a socket", listen(p[0], 1), ENOTSOCK);
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    write(s[0], "one", 3);
    write(s[0], "two", 3);
    CHECK_EQ("packets keep apart", read(s[1], buf, 64), 3);
    CHECK_EQ("and are cut", read(s[1], buf, 1), 1);
    CHECK_ERRNO("the cut part is gone", recv(s[1], buf, 9, MSG_DONTWAIT), EAGAIN);
    close(s[0]);
    close(s[1]);
    close(p[0]);
    close(p[1]);
}

static void copying(void)
{
    int from = open("from", O_CREAT | O_RDWR, 0600), to = open("to", O_CREAT | O_RDWR, 0600), p[2];
    write(from, "0123456789", 10);
    off_t offset = 2;
    CHECK_EQ("sendfile", sendfile(to, from, &offset, 5), 5);
    CHECK_EQ("sendfile moves its offset", offset, 7);
    CHECK_EQ("and not the file's", lseek(from, 0, SEEK_CUR), 10);
    loff_t in = 0, out = 0;
    CHECK_EQ("copy_file_range", copy_file_range(from, &in, to, &out, 10, 0), 10);
    pipe(p);
    in = 0;
    CHECK_EQ("splice in", splice(from, &in, p[1], NULL, 4, 0), 4);
    char buf[8];
    CHECK_EQ("splice out", read(p[0], buf, 8), 4);
    CHECK("content", !memcmp(buf, "0123", 4));
    CHECK_ERRNO("splice without a pipe", splice(from, NULL, to, NULL, 1, 0), EINVAL);
    close(p[0]);
    close(p[1]);
    close(from);
    close(to);
}

static void sysv(void)
{
    int id = semget(IPC_PRIVATE, 2, 0600);
    CHECK("semget", id >= 0);
    struct sembuf up = {0, 2, 0}, down = {0, -3, IPC_NOWAIT};
    CHECK_EQ("semop", semop(id, &up, 1), 0);
    CHECK_ERRNO("semop would wait", semop(id, &down, 1), EAGAIN);
    CHECK_EQ("GETVAL", semctl(id, 0, GETVAL), 2);
    CHECK_ERRNO("semaphore out of range", semctl(id, 9, GETVAL), EINVAL);
    CHECK_EQ("semctl remove", semctl(id, 0, IPC_RMID), 0);
    CHECK_ERRNO("gone", semop(id, &up, 1), EINVAL);
    id = msgget(IPC_PRIVATE, 0600);
    struct { long type; char text[16]; } msg = {3, "three"};
    CHECK_EQ("msgsnd", msgsnd(id, &msg, 5, 0), 0);
    CHECK_ERRNO("msgrcv of another type", msgrcv(id, &msg, 16, 9, IPC_NOWAIT), ENOMSG);
    CHECK_ERRNO("msgrcv too small", msgrcv(id, &msg, 2, 0, 0), E2BIG);
    CHECK_EQ("msgrcv", msgrcv(id, &msg, 16, -5, 0), 5);
    CHECK_EQ("msgctl remove", msgctl(id, IPC_RMID, NULL), 0);
    id = shmget(IPC_PRIVATE, 5000, 0600);
    char *at = shmat(id, NULL, 0);
    CHECK("shmat", at != (char *)-1);
    struct shmid_ds ds;
    CHECK_EQ("IPC_STAT", shmctl(id, IPC_STAT, &ds), 0);
    CHECK("attached and sized", ds.shm_nattch == 1 && ds.shm_segsz == 5000);
    pid_t pid = fork();
    if (!pid) {
        at[0] = 'c';
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    CHECK_EQ("shared with a child", at[0], 'c');
    CHECK_EQ("remove while attached", shmctl(id, IPC_RMID, NULL), 0);
    CHECK_EQ("still usable", (at[4999] = 1), 1);
    CHECK_EQ("shmdt", shmdt(at), 0);
    CHECK_ERRNO("shmdt again", shmdt(at), EINVAL);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    enter_scratch();
    signal(SIGPIPE, SIG_IGN);
    pipes();
    readiness();
    epolls();
    events();
    sockets();
    copying();
    sysv();
    return finish();
}
