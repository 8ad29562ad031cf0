/* epoll(7), eventfd(2), timerfd_create(2), poll(2) and clocks. */
#include "guest.h"
static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
int main(void) {
    uint64_t value = 5;
    int ev = eventfd(2, EFD_NONBLOCK);
    CHECK("eventfd starts with its value", read(ev, &value, 8) == 8 && value == 2);
    FAILS("and is then empty", read(ev, &value, 8), EAGAIN);
    FAILS("a short read", read(ev, &value, 4), EINVAL);
    value = UINT64_MAX;
    FAILS("too large", write(ev, &value, 8), EINVAL);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 42}, got[4];
    CHECK("epoll add", epoll_ctl(ep, EPOLL_CTL_ADD, ev, &event) == 0);
    FAILS("added twice", epoll_ctl(ep, EPOLL_CTL_ADD, ev, &event), EEXIST);
    FAILS("not there", epoll_ctl(ep, EPOLL_CTL_DEL, 1000, &event), EBADF);
    FAILS("itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, &event), EINVAL);
    FAILS("no room for events", epoll_wait(ep, got, 0, 0), EINVAL);
    CHECK("nothing yet", epoll_wait(ep, got, 4, 0) == 0);
    value = 1;
    CHECK("signal it", write(ev, &value, 8) == 8);
    CHECK("ready", epoll_wait(ep, got, 4, -1) == 1 && got[0].data.u32 == 42 && got[0].events == EPOLLIN);
    CHECK("level-triggered stays", epoll_wait(ep, got, 4, 0) == 1);
    event.events = EPOLLIN | EPOLLET;
    CHECK("epoll mod", epoll_ctl(ep, EPOLL_CTL_MOD, ev, &event) == 0);
    CHECK("edge-triggered tells once", epoll_wait(ep, got, 4, 0) == 1 && epoll_wait(ep, got, 4, 0) == 0);
    CHECK("and again on an event", write(ev, &value, 8) == 8 && epoll_wait(ep, got, 4, 0) == 1);
    event.events = EPOLLIN | EPOLLONESHOT;
    CHECK("one-shot", !epoll_ctl(ep, EPOLL_CTL_MOD, ev, &event) && epoll_wait(ep, got, 4, 0) == 1
          && write(ev, &value, 8) == 8 && epoll_wait(ep, got, 4, 0) == 0);
    CHECK("a closed one leaves", close(ev) == 0);
    FAILS("and is gone", epoll_ctl(ep, EPOLL_CTL_MOD, ev, &event), EBADF);
    int tfd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec ts = {.it_value = {0, 10000000}, .it_interval = {0, 10000000}};
    int64_t began = now();
    CHECK("timerfd fires, not early", timerfd_settime(tfd, 0, &ts, NULL) == 0 && read(tfd, &value, 8) == 8
          && value >= 1 && now() - began >= 10000000);
    event.events = EPOLLIN;
    CHECK("timerfd in epoll", !epoll_ctl(ep, EPOLL_CTL_ADD, tfd, &event) && epoll_wait(ep, got, 4, 5000) == 1);
    began = now();
    CHECK("poll waits its time", poll(NULL, 0, 20) == 0 && now() - began >= 20000000);
    struct timespec brief = {0, 5000000}, bad = {0, -1};
    began = now();
    CHECK("nanosleep", nanosleep(&brief, NULL) == 0 && now() - began >= 5000000);
    FAILS("bad nanosleep", nanosleep(&bad, NULL), EINVAL);
    FAILS("bad clock", syscall(SYS_clock_gettime, 99, &brief), EINVAL);
    struct pollfd closed = {1000, POLLIN, 0}, ignored = {-1, POLLIN, 7};
    CHECK("poll of a closed descriptor", poll(&closed, 1, 0) == 1 && closed.revents == POLLNVAL);
    CHECK("poll ignores negatives", poll(&ignored, 1, 0) == 0 && ignored.revents == 0);
    return done();
}
