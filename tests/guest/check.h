/*
 * The assertions of guest tests. A program prints one line an assertion, `ok NAME` or
 * `not ok NAME: DETAIL`, and ends with the number of failures as its exit status. It is run natively
 * (Linux is the oracle: every line must be ok) and in the sandbox on every platform, and the outputs
 * are compared; so nothing that must differ (pids, addresses, times) may be printed.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int check_failures;

#define CHECK(name, condition)                                                                     \
    do {                                                                                           \
        if (condition) {                                                                           \
            printf("ok %s\n", name);                                                               \
        } else {                                                                                   \
            printf("not ok %s: %s\n", name, #condition);                                           \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

/* The call fails with exactly this errno. */
#define CHECK_ERRNO(name, call, expected)                                                          \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long result_ = (long)(call);                                                               \
        int errno_ = errno;                                                                        \
        if (result_ == -1 && errno_ == (expected)) {                                               \
            printf("ok %s\n", name);                                                               \
        } else {                                                                                   \
            printf("not ok %s: result %ld, %s instead of %s\n", name, result_,                     \
                   strerror(errno_), strerror(expected));                                          \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

/* The call returns exactly this. */
#define CHECK_EQ(name, call, expected)                                                             \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long result_ = (long)(call), expected_ = (long)(expected);                                 \
        if (result_ == expected_) {                                                                \
            printf("ok %s\n", name);                                                               \
        } else {                                                                                   \
            printf("not ok %s: %ld (%s) instead of %ld\n", name, result_, strerror(errno),         \
                   expected_);                                                                     \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

/* A directory of the test's own, made and entered; whoever runs the test removes TMPDIR. */
static inline void enter_scratch(void)
{
    static char path[4096];
    const char *parent = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/guest-test.XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(path) || chdir(path)) {
        perror("scratch directory");
        exit(99);
    }
}

static inline int finish(void)
{
    fflush(stdout);
    return check_failures > 100 ? 100 : check_failures;
}

#endif
