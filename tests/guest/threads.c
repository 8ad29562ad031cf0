/* Threads, futex(2), thread-local state. */
#include "guest.h"
#include <linux/futex.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int total, ready;
static __thread int own = 3;
static void *adder(void *arg) {
    own += (int)(long)arg;
    for (int i = 0; i < 10000; i++) {
        pthread_mutex_lock(&mutex);
        total++;
        pthread_mutex_unlock(&mutex);
    }
    return (void *)(long)own;
}
static void *waiter(void *arg) {
    pthread_mutex_lock(&mutex);
    while (!ready) pthread_cond_wait(&cond, &mutex);
    pthread_mutex_unlock(&mutex);
    return arg;
}
static void *ids(void *arg) {
    (void)arg;
    return (void *)(long)(getpid() != syscall(SYS_gettid));
}
static long futex(int *word, int op, int value, const struct timespec *timeout) {
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}
static void *outlives(void *arg) {
    usleep(20000);
    syscall(SYS_exit, 4);
    return arg;
}
int main(void) {
    pthread_t t[4];
    void *result;
    int good = 1;
    for (long i = 0; i < 4; i++) good &= !pthread_create(&t[i], NULL, adder, (void *)i);
    CHECK("threads start", good);
    for (long i = 0; i < 4; i++) good &= !pthread_join(t[i], &result) && (long)result == 3 + i;
    CHECK("each has its own thread-local value", good);
    CHECK("a mutex excludes", total == 40000);
    CHECK("condition", !pthread_create(&t[0], NULL, waiter, (void *)9L));
    usleep(10000);
    pthread_mutex_lock(&mutex);
    ready = 1;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&mutex);
    CHECK("wakes", !pthread_join(t[0], &result) && (long)result == 9);
    pthread_create(&t[0], NULL, ids, NULL);
    pthread_join(t[0], &result);
    CHECK("a thread shares the process id and has its own", (long)result == 1);
    CHECK("the first thread's are the same", getpid() == syscall(SYS_gettid));
    int word = 1;
    struct timespec brief = {0, 2000000}, bad = {0, 2000000000};
    FAILS("futex: another value", futex(&word, FUTEX_WAIT, 2, NULL), EAGAIN);
    FAILS("futex: timeout", futex(&word, FUTEX_WAIT, 1, &brief), ETIMEDOUT);
    FAILS("futex: bad timeout", futex(&word, FUTEX_WAIT, 1, &bad), EINVAL);
    FAILS("futex: odd address", futex((int *)((char *)&word + 1), FUTEX_WAIT, 1, &brief), EINVAL);
    FAILS("futex: no address", futex((int *)4096, FUTEX_WAIT, 1, &brief), EFAULT);
    CHECK("futex: nobody to wake", futex(&word, FUTEX_WAKE, 1, NULL) == 0);
    FAILS("futex: unknown operation", futex(&word, 99, 1, NULL), ENOSYS);
    int status;
    CHILD(status, {
        pthread_create(&t[0], NULL, outlives, NULL);
        syscall(SYS_exit, 3);
    });
    CHECK("the exit code of the last thread counts", WIFEXITED(status) && WEXITSTATUS(status) == 4);
    return done();
}
