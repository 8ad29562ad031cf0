/* mmap, munmap, mprotect, mremap, brk, madvise, mincore, memfd: mmap(2), mremap(2), memfd_create(2), ... */
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define PAGE 4096
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf env;
static volatile int fault_signal, fault_code, expecting;
static void *volatile fault_address;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (!expecting) {
        printf("not ok a fault nobody expected: signal %d at %p\n", signal, info->si_addr);
        _exit(98);
    }
    fault_signal = signal;
    fault_code = info->si_code;
    fault_address = info->si_addr;
    siglongjmp(env, 1);
}

/* Which signal a write (or read) of this byte raises; 0 for none. */
static int touch(volatile char *at, int writes)
{
    fault_signal = 0;
    expecting = 1;
    if (!sigsetjmp(env, 1)) {
        char byte = *at;
        if (writes)
            *at = byte;
    }
    expecting = 0;
    return fault_signal;
}

static void mapping(void)
{
    char *p = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    CHECK("anonymous", p != MAP_FAILED);
    CHECK("zeroed", !p[0] && !p[4 * PAGE - 1]);
    CHECK_ERRNO("length zero", mmap(NULL, 0, RW, ANON, -1, 0), EINVAL);
    CHECK_ERRNO("no type", mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    CHECK_ERRNO("bad descriptor", mmap(NULL, PAGE, RW, MAP_PRIVATE, 999, 0), EBADF);
    CHECK_ERRNO("unaligned fixed", mmap(p + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
    CHECK_ERRNO("unaligned offset", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 0, 5), EINVAL);
    CHECK_ERRNO("too long", mmap(NULL, 1ul << 47, PROT_READ, ANON, -1, 0), ENOMEM);
    CHECK_EQ("fixed", mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0), p + PAGE);
    CHECK_ERRNO("fixed without replacing", mmap(p, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    CHECK_EQ("unmap the middle", munmap(p + PAGE, PAGE), 0);
    CHECK_EQ("hole faults", touch(p + PAGE, 0), SIGSEGV);
    CHECK("fault address and code", fault_address == p + PAGE && fault_code == SEGV_MAPERR);
    CHECK_EQ("around it does not", touch(p, 1) + touch(p + 2 * PAGE, 1), 0);
    CHECK_EQ("hint in a hole is taken", mmap(p + PAGE, PAGE, RW, ANON, -1, 0), p + PAGE);
    CHECK_ERRNO("unmap unaligned", munmap(p + 1, PAGE), EINVAL);
    CHECK_ERRNO("unmap nothing", munmap(p, 0), EINVAL);
    CHECK_EQ("unmap a hole", (munmap(p, PAGE), munmap(p, PAGE)), 0);
    munmap(p, 4 * PAGE);
    p = mmap(NULL, PAGE, PROT_NONE, ANON, -1, 0);
    CHECK_EQ("PROT_NONE faults", touch(p, 0), SIGSEGV);
    CHECK("access error", fault_code == SEGV_ACCERR);
    munmap(p, PAGE);
    p = mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0);
    CHECK("MAP_32BIT", (unsigned long)p < 1ul << 31);
    munmap(p, PAGE);
    CHECK_EQ("null faults", touch(NULL, 0), SIGSEGV);
}

static void protecting(void)
{
    char *p = mmap(NULL, 3 * PAGE, RW, ANON, -1, 0);
    CHECK_EQ("mprotect", mprotect(p + PAGE, PAGE, PROT_READ), 0);
    CHECK_EQ("read-only faults on write", touch(p + PAGE, 1), SIGSEGV);
    CHECK_EQ("and not on read", touch(p + PAGE, 0), 0);
    CHECK_EQ("neighbours writable", touch(p, 1) + touch(p + 2 * PAGE, 1), 0);
    munmap(p + PAGE, PAGE);
    CHECK_ERRNO("mprotect over a hole", mprotect(p, 3 * PAGE, PROT_READ), ENOMEM);
    CHECK_ERRNO("mprotect unaligned", mprotect(p + 1, PAGE, PROT_READ), EINVAL);
    CHECK_ERRNO("mprotect unknown bits", mprotect(p, PAGE, 0x100), EINVAL);
    unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    char *exec = mmap(NULL, PAGE, RW, ANON, -1, 0);
    memcpy(exec, code, sizeof code);
    CHECK_EQ("make executable", mprotect(exec, PAGE, PROT_READ | PROT_EXEC), 0);
    CHECK_EQ("run it", ((int (*)(void))exec)(), 42);
    munmap(exec, PAGE);
    munmap(p, 3 * PAGE);
}

static void files(void)
{
    int fd = open("f", O_CREAT | O_RDWR, 0600);
    ftruncate(fd, 3 * PAGE);
    pwrite(fd, "file", 4, 0);
    char *shared = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE, fd, 0);
    CHECK("mapped content", !memcmp(shared, "file", 4) && !memcmp(private, "file", 4));
    memcpy(shared, "SHAR", 4);
    char buf[8] = "";
    CHECK_EQ("shared write reaches the file", (pread(fd, buf, 4, 0), memcmp(buf, "SHAR", 4)), 0);
    private[0] = 'x';
    CHECK_EQ("private write does not", (pread(fd, buf, 4, 0), memcmp(buf, "SHAR", 4)), 0);
    pwrite(fd, "WRIT", 4, PAGE);
    CHECK("file write is seen", !memcmp(shared + PAGE, "WRIT", 4));
    CHECK_EQ("msync", msync(shared, PAGE, MS_SYNC), 0);
    CHECK_ERRNO("msync both ways", msync(shared, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_ERRNO("msync unaligned", msync(shared + 1, PAGE, MS_SYNC), EINVAL);
    close(fd);
    shared[2 * PAGE] = 1;
    CHECK_EQ("mapping outlives the descriptor", shared[2 * PAGE], 1);
    truncate("f", PAGE);
    CHECK_EQ("past the end faults", touch(shared + 2 * PAGE, 0), SIGBUS);
    CHECK_EQ("before it does not", touch(shared, 1), 0);
    munmap(shared, 3 * PAGE);
    munmap(private, 3 * PAGE);
    fd = open("f", O_RDONLY);
    CHECK_ERRNO("shared writable of read-only", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), EACCES);
    char *ro = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK_ERRNO("and not by mprotect", mprotect(ro, PAGE, RW), EACCES);
    CHECK("private writable of read-only", mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    close(fd);
    fd = open("f", O_WRONLY);
    CHECK_ERRNO("write-only cannot be mapped", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), EACCES);
    close(fd);
    fd = open(".", O_RDONLY);
    CHECK_ERRNO("directory", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), ENODEV);
    close(fd);
}

static void remapping(void)
{
    char *p = mmap(NULL, 4 * PAGE, RW, ANON, -1, 0);
    p[0] = 'a';
    p[3 * PAGE] = 'd';
    CHECK_EQ("shrink", mremap(p, 4 * PAGE, 2 * PAGE, 0), p);
    CHECK_EQ("cut off", touch(p + 3 * PAGE, 0), SIGSEGV);
    char *q = mremap(p, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    CHECK("grow", q != MAP_FAILED && q[0] == 'a' && !q[63 * PAGE]);
    char *to = mmap(NULL, 64 * PAGE, PROT_NONE, ANON, -1, 0);
    CHECK_EQ("to a fixed place", mremap(q, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
    CHECK_EQ("content moved", to[0], 'a');
    CHECK_EQ("old place gone", touch(q, 0), SIGSEGV);
    CHECK_ERRNO("fixed needs maymove", mremap(to, PAGE, PAGE, MREMAP_FIXED, q), EINVAL);
    CHECK_ERRNO("overlap", mremap(to, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + PAGE), EINVAL);
    CHECK_ERRNO("of nothing", mremap(q, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    char *keep = mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    CHECK("dontunmap", keep != MAP_FAILED && keep[0] == 'a' && to[0] == 0);
    munmap(to, 64 * PAGE);
    munmap(keep, PAGE);
}

static void heap_and_advice(void)
{
    char *start = sbrk(0);
    CHECK("grow the heap", sbrk(3 * PAGE) == start);
    start[0] = 'h';
    CHECK_EQ("shrink it", (long)sbrk(-3 * PAGE), (long)(start + 3 * PAGE));
    char *p = mmap(NULL, 2 * PAGE, RW, ANON, -1, 0);
    p[0] = p[PAGE] = 1;
    CHECK_EQ("MADV_DONTNEED", madvise(p, PAGE, MADV_DONTNEED), 0);
    CHECK("drops only its range", p[0] == 0 && p[PAGE] == 1);
    CHECK_ERRNO("unknown advice", madvise(p, PAGE, 9999), EINVAL);
    CHECK_ERRNO("advice unaligned", madvise(p + 1, PAGE, MADV_NORMAL), EINVAL);
    CHECK_EQ("advice on nothing", madvise(p, 0, MADV_NORMAL), 0);
    unsigned char resident[2];
    p[0] = 1;
    CHECK_EQ("mincore", mincore(p, 2 * PAGE, resident), 0);
    CHECK("resident", (resident[0] & 1) && (resident[1] & 1));
    munmap(p + PAGE, PAGE);
    CHECK_ERRNO("mincore of a hole", mincore(p, 2 * PAGE, resident), ENOMEM);
    CHECK_ERRNO("advice over a hole", madvise(p, 2 * PAGE, MADV_DONTNEED), ENOMEM);
    CHECK_EQ("mlock", mlock(p, PAGE), 0);
    CHECK_EQ("munlock", munlock(p, PAGE), 0);
    CHECK_ERRNO("mlock of a hole", mlock(p, 2 * PAGE), ENOMEM);
    munmap(p, PAGE);
    struct rlimit old, limit = {.rlim_cur = 1ul << 30};
    getrlimit(RLIMIT_AS, &old);
    limit.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
    CHECK_ERRNO("RLIMIT_AS", mmap(NULL, 2ul << 30, PROT_READ, ANON, -1, 0), ENOMEM);
    setrlimit(RLIMIT_AS, &old);
}

static void memfds(void)
{
    int fd = memfd_create("m", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    CHECK("memfd", fd >= 0);
    CHECK_EQ("size it", ftruncate(fd, PAGE), 0);
    char *p = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    strcpy(p, "memfd");
    char buf[8] = "";
    CHECK_EQ("reads what was mapped", (pread(fd, buf, 6, 0), strcmp(buf, "memfd")), 0);
    CHECK_ERRNO("seal writes while mapped", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    munmap(p, PAGE);
    CHECK_EQ("seal", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK), 0);
    CHECK_EQ("seals", fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK);
    CHECK_ERRNO("sealed write", pwrite(fd, "x", 1, 0), EPERM);
    CHECK_ERRNO("sealed shrink", ftruncate(fd, 0), EPERM);
    CHECK_ERRNO("sealed shared mapping", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), EPERM);
    CHECK_EQ("growing is free", ftruncate(fd, 2 * PAGE), 0);
    close(fd);
    fd = memfd_create("m", 0);
    CHECK_ERRNO("no sealing allowed", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    close(fd);
    CHECK_ERRNO("memfd bad flags", memfd_create("m", 0x8000), EINVAL);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    enter_scratch();
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    mapping();
    protecting();
    files();
    remapping();
    heap_and_advice();
    memfds();
    return finish();
}
