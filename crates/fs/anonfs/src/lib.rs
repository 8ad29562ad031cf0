//! Files without a name: pipes, eventfd, epoll, timerfd, inotify.
#![forbid(unsafe_code)]
