/* System V IPC and copies between descriptors in depth: sysvipc(7), semop(2), shmat(2), splice(2), ... */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

union semun {
    int value;
    struct semid_ds *ds;
    unsigned short *values;
};

static int change(int id, int number, int delta, int flags)
{
    struct sembuf op = {number, delta, flags};
    return semop(id, &op, 1);
}

static void *wait_for_more(void *id)
{
    errno = 0;
    long result = change((int)(long)id, 0, -1, 0);
    return (void *)(result ? (long)errno : 0);
}

static void count_waiters(int id, int command, int wanted)
{
    for (int i = 0; i < 1000 && semctl(id, 0, command) != wanted; i++)
        usleep(1000);
    CHECK_EQ("waiters are counted", semctl(id, 0, command), wanted);
}

static void interrupt(int signal) {}

static void semaphores(void)
{
    key_t key = 0x52616d70 ^ getpid();
    int id = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
    CHECK("semget", id >= 0);
    CHECK_EQ("by key", semget(key, 0, 0), id);
    CHECK_ERRNO("exclusively", semget(key, 3, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERRNO("too many", semget(key, 4, 0), EINVAL);
    CHECK_ERRNO("no such key", semget(key + 1, 1, 0), ENOENT);
    unsigned short values[3] = {1, 2, 3}, got[3];
    CHECK_EQ("SETALL", semctl(id, 0, SETALL, (union semun){.values = values}), 0);
    struct sembuf both[2] = {{0, -1, 0}, {1, -3, IPC_NOWAIT}};
    CHECK_ERRNO("all or nothing", semop(id, both, 2), EAGAIN);
    CHECK_EQ("GETALL", semctl(id, 0, GETALL, (union semun){.values = got}), 0);
    CHECK("nothing", !memcmp(values, got, sizeof got));
    CHECK_ERRNO("SETVAL out of range", semctl(id, 0, SETVAL, (union semun){.value = 32768}), ERANGE);
    CHECK_ERRNO("too large", change(id, 0, 32767, 0), ERANGE);
    CHECK_ERRNO("no such semaphore", change(id, 3, 1, 0), EFBIG);
    CHECK_ERRNO("no operations", semop(id, both, 0), EINVAL);
    CHECK_ERRNO("too many operations", semop(id, both, 501), E2BIG);
    struct timespec brief = {0, 10000000}, bad = {0, -1};
    CHECK_ERRNO("semtimedop", semtimedop(id, (struct sembuf[]){{2, 0, 0}}, 1, &brief), EAGAIN);
    CHECK_ERRNO("bad timeout", semtimedop(id, (struct sembuf[]){{2, 0, 0}}, 1, &bad), EINVAL);
    pid_t pid = fork();
    if (!pid) {
        change(id, 2, -3, SEM_UNDO);
        _exit(semctl(id, 2, GETVAL));
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_EQ("taken by the child", WEXITSTATUS(status), 0);
    CHECK_EQ("undone at its end", semctl(id, 2, GETVAL), 3);
    CHECK_EQ("GETPID", semctl(id, 2, GETPID), pid);
    semctl(id, 0, SETVAL, (union semun){.value = 0});
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, wait_for_more, (void *)(long)id);
    count_waiters(id, GETNCNT, 1);
    change(id, 0, 1, 0);
    pthread_join(thread, &result);
    CHECK_EQ("woken", (long)result, 0);
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&thread, NULL, wait_for_more, (void *)(long)id);
    count_waiters(id, GETNCNT, 1);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, &result);
    CHECK_EQ("never restarted", (long)result, EINTR);
    pthread_create(&thread, NULL, wait_for_more, (void *)(long)id);
    count_waiters(id, GETNCNT, 1);
    struct semid_ds ds;
    CHECK_EQ("IPC_STAT", semctl(id, 0, IPC_STAT, (union semun){.ds = &ds}), 0);
    CHECK("what it is", ds.sem_nsems == 3 && ds.sem_perm.__key == key && ds.sem_perm.mode == 0600 && ds.sem_otime);
    ds.sem_perm.mode = 0400;
    CHECK_EQ("IPC_SET", semctl(id, 0, IPC_SET, (union semun){.ds = &ds}), 0);
    CHECK_EQ("IPC_RMID", semctl(id, 0, IPC_RMID), 0);
    pthread_join(thread, &result);
    CHECK_EQ("removed under a waiter", (long)result, EIDRM);
    CHECK_ERRNO("gone", semctl(id, 0, GETVAL), EINVAL);
}

static struct message {
    long type;
    char text[9000];
} message;

static void queues(void)
{
    int id = msgget(IPC_PRIVATE, 0600);
    message.type = 1;
    CHECK_ERRNO("too long", msgsnd(id, &message, 8193, 0), EINVAL);
    message.type = 0;
    CHECK_ERRNO("no type", msgsnd(id, &message, 1, 0), EINVAL);
    for (int i = 0; i < 4; i++) {
        message.type = "\3\1\2\1"[i];
        message.text[0] = 'a' + i;
        msgsnd(id, &message, 1, 0);
    }
    CHECK("lowest first", msgrcv(id, &message, 9, -2, 0) == 1 && message.text[0] == 'b');
    CHECK("of a type", msgrcv(id, &message, 9, 2, 0) == 1 && message.text[0] == 'c');
    CHECK("of another", msgrcv(id, &message, 9, 1, MSG_EXCEPT) == 1 && message.text[0] == 'a');
    CHECK_ERRNO("none", msgrcv(id, &message, 9, 7, IPC_NOWAIT), ENOMSG);
    CHECK("any", msgrcv(id, &message, 9, 0, 0) == 1 && message.text[0] == 'd' && message.type == 1);
    message.type = 5;
    msgsnd(id, &message, 8192, 0);
    CHECK_EQ("cut", msgrcv(id, &message, 100, 0, MSG_NOERROR), 100);
    msgsnd(id, &message, 8192, 0);
    msgsnd(id, &message, 8192, 0);
    CHECK_ERRNO("full", msgsnd(id, &message, 1, IPC_NOWAIT), EAGAIN);
    pid_t pid = fork();
    if (!pid)
        _exit(msgsnd(id, &message, 1, 0) ? 1 : 0);
    usleep(10000);
    msgrcv(id, &message, 8192, 0, 0);
    int status;
    waitpid(pid, &status, 0);
    CHECK_EQ("room is waited for", status, 0);
    struct msqid_ds ds;
    msgctl(id, IPC_STAT, &ds);
    CHECK("counted", ds.msg_qnum == 2 && ds.__msg_cbytes == 8193 && ds.msg_lspid == pid && ds.msg_qbytes == 16384);
    CHECK_EQ("msgctl IPC_RMID", msgctl(id, IPC_RMID, NULL), 0);
    CHECK_ERRNO("queue gone", msgsnd(id, &message, 1, 0), EINVAL);
}

static void segments(void)
{
    key_t key = 0x52616d70 ^ getpid();
    CHECK_ERRNO("nothing", shmget(key, 0, IPC_CREAT), EINVAL);
    int id = shmget(key, 12288, IPC_CREAT | 0600);
    CHECK_ERRNO("larger", shmget(key, 12289, 0), EINVAL);
    char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    CHECK("twice", a != (char *)-1 && b != (char *)-1 && a != b);
    a[5000] = 'x';
    CHECK_EQ("one memory", b[5000], 'x');
    CHECK_ERRNO("read only stays so", mprotect(b, 4096, PROT_READ | PROT_WRITE), EACCES);
    CHECK_ERRNO("in the way", shmat(id, a + 4096, 0), EINVAL);
    CHECK_ERRNO("unaligned", shmat(id, a + 1, 0), EINVAL);
    CHECK("over it", shmat(id, a + 1, SHM_RND | SHM_REMAP) == a);
    munmap(a + 4096, 4096);
    struct shmid_ds ds;
    shmctl(id, IPC_STAT, &ds);
    CHECK_EQ("pieces count", ds.shm_nattch, 3);
    CHECK_EQ("all pieces go", shmdt(a), 0);
    CHECK_ERRNO("they are gone", mprotect(a + 8192, 4096, PROT_READ), ENOMEM);
    pid_t pid = fork();
    if (!pid)
        pause();
    shmctl(id, IPC_STAT, &ds);
    CHECK_EQ("a child is one more", ds.shm_nattch, 2);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_EQ("remove", shmctl(id, IPC_RMID, NULL), 0);
    CHECK_ERRNO("its key is free", shmget(key, 1, 0), ENOENT);
    shmctl(id, IPC_STAT, &ds);
    CHECK_EQ("SHM_DEST", ds.shm_perm.mode, 01600);
    CHECK("still attachable", shmat(id, NULL, 0) != (char *)-1);
    CHECK_EQ("still there", b[5000], 'x');
    CHECK_EQ("detach", shmdt(b), 0);
}

static void splices(void)
{
    int p[2], q[2], s[2];
    pipe(p);
    pipe(q);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    char buf[100];
    int file = open("file", O_CREAT | O_RDWR, 0600), append = open("file", O_WRONLY | O_APPEND);
    CHECK_ERRNO("nothing in it", splice(p[0], NULL, q[1], NULL, 9, SPLICE_F_NONBLOCK), EAGAIN);
    pid_t pid = fork();
    if (!pid) {
        usleep(10000);
        write(s[1], "through", 7);
        _exit(0);
    }
    CHECK_EQ("socket to pipe waits", splice(s[0], NULL, p[1], NULL, 99, 0), 7);
    waitpid(pid, NULL, 0);
    CHECK_EQ("tee", tee(p[0], q[1], 99, 0), 7);
    CHECK_EQ("pipe to file", splice(p[0], NULL, file, NULL, 99, 0), 7);
    CHECK_EQ("moves its offset", lseek(file, 0, SEEK_CUR), 7);
    CHECK_EQ("the other copy", read(q[0], buf, 99), 7);
    CHECK_ERRNO("same pipe", splice(p[0], NULL, p[1], NULL, 1, 0), EINVAL);
    CHECK_ERRNO("tee into itself", tee(p[0], p[1], 1, 0), EINVAL);
    loff_t at = 0;
    CHECK_ERRNO("offset of a pipe", splice(p[0], &at, file, NULL, 1, 0), ESPIPE);
    CHECK_EQ("file to pipe at an offset", splice(file, &at, p[1], NULL, 4, 0), 4);
    CHECK_EQ("which moves", at, 4);
    CHECK_ERRNO("to the end only", splice(p[0], NULL, append, NULL, 4, 0), EINVAL);
    CHECK_EQ("pipe to socket", splice(p[0], NULL, s[0], NULL, 99, 0), 4);
    CHECK_EQ("arrives", read(s[1], buf, 99), 4);
    struct iovec iov = {"vector", 6};
    CHECK_EQ("vmsplice", vmsplice(p[1], &iov, 1, 0), 6);
    CHECK_EQ("vmsplice out", read(p[0], buf, 99), 6);
    CHECK_ERRNO("vmsplice to a file", vmsplice(file, &iov, 1, 0), EBADF);
    off_t offset = 0;
    CHECK_EQ("sendfile to a socket", sendfile(s[0], file, &offset, 99), 7);
    CHECK_EQ("its offset", offset, 7);
    CHECK_ERRNO("sendfile to the end", sendfile(append, file, &offset, 1), EINVAL);
    CHECK_ERRNO("sendfile from a pipe", sendfile(s[0], p[0], NULL, 1), EINVAL);
    CHECK_ERRNO("sendfile from a socket", sendfile(file, s[0], NULL, 1), EINVAL);
    loff_t from = 0, to = 3;
    CHECK_ERRNO("copy onto itself", copy_file_range(file, &from, file, &to, 5, 0), EINVAL);
    CHECK_EQ("copy behind itself", copy_file_range(file, &from, file, &to, 3, 0), 3);
    CHECK_ERRNO("copy with flags", copy_file_range(file, &from, file, &to, 1, 1), EINVAL);
    CHECK_ERRNO("copy to the end", copy_file_range(file, NULL, append, NULL, 1, 0), EBADF);
    CHECK_ERRNO("copy from a pipe", copy_file_range(p[0], NULL, file, NULL, 1, 0), EINVAL);
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO("splice to nobody", splice(file, &from, p[1], NULL, 1, 0), EPIPE);
    close(q[1]);
    CHECK_EQ("splice from nobody", splice(q[0], NULL, s[0], NULL, 1, 0), 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    enter_scratch();
    semaphores();
    queues();
    segments();
    splices();
    return finish();
}
