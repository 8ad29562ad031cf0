/* A storm of signals into threads that compute, make calls in a row, wait for a byte and wait for a futex, all with live
 * vector registers, as wide as the processor has them. Whoever runs it long sets STORM_ROUNDS. */
#include "guest.h"
#include <linux/futex.h>
#include <stdatomic.h>

/* What a thread does between filling its vector registers and looking at them again; rdi is an argument. */
void compute_body(void), calls_body(void), read_body(void), futex_body(void);
__asm__(".text\n"
        "compute_body: movl $20000, %ecx\n1: decl %ecx\njnz 1b\nret\n"
        /* getppid(2), 40 times, which must always say the same. */
        "calls_body: movl $40, %r8d\nmovl $110, %eax\nsyscall\nmovl %eax, %r9d\n"
        "1: movl $110, %eax\nsyscall\ncmpl %eax, %r9d\njne 2f\ndecl %r8d\njnz 1b\nxorl %eax, %eax\nret\n"
        "2: movl $1, %eax\nret\n"
        /* read(fd, byte, 1); rsi and rdx are set. */
        "read_body: xorl %eax, %eax\nmovl $0, %eax\nsyscall\nret\n"
        /* futex(word, FUTEX_WAIT, 0, time). */
        "futex_body: movl $202, %eax\nsyscall\nret\n");

enum { XMM, YMM, ZMM };
static int width;
typedef struct { _Alignas(64) unsigned char bytes[32 * 64]; unsigned long mask; } Vectors;

#define EACH16(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define EACH32(f) EACH16(f) f(16) f(17) f(18) f(19) f(20) f(21) f(22) f(23) f(24) f(25) f(26) f(27) f(28) f(29) f(30) f(31)
#define XLOAD(n) "movdqu " #n "*64(%%r12), %%xmm" #n "\n"
#define XSTORE(n) "movdqu %%xmm" #n ", " #n "*64(%%r13)\n"
#define YLOAD(n) "vmovdqu " #n "*64(%%r12), %%ymm" #n "\n"
#define YSTORE(n) "vmovdqu %%ymm" #n ", " #n "*64(%%r13)\n"
#define ZLOAD(n) "vmovdqu64 " #n "*64(%%r12), %%zmm" #n "\n"
#define ZSTORE(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%%r13)\n"
#define CLOBBERS "rcx", "r8", "r9", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
    "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
/* Not into the red zone of the function around it. */
#define BODY "subq $128, %%rsp\ncall *%%rbx\naddq $128, %%rsp\n"
#define RUN(load, store) __asm__ volatile(load BODY store \
    : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(d) : "b"(body), "r"(in), "r"(out) : CLOBBERS)

/* Calls `body` with the registers filled from `from`, which are in `to` afterwards. */
static long with_vectors(void (*body)(void), const Vectors *from, Vectors *to, long a, long b, long c, long e) {
    long result;
    register const Vectors *in __asm__("r12") = from;
    register Vectors *out __asm__("r13") = to;
    register long d __asm__("r10") = e;
    if (width == ZMM)
        RUN("kmovq 2048(%%r12), %%k1\n" EACH32(ZLOAD), EACH32(ZSTORE) "kmovq %%k1, 2048(%%r13)\nvzeroupper\n");
    else if (width == YMM)
        RUN(EACH16(YLOAD), EACH16(YSTORE) "vzeroupper\n");
    else
        RUN(EACH16(XLOAD), EACH16(XSTORE));
    return result;
}

static void fill(Vectors *v, unsigned seed) {
    memset(v, 0, sizeof *v);
    int registers = width == ZMM ? 32 : 16, bytes = 16 << width;
    for (int r = 0; r < registers; r++)
        for (int i = 0; i < bytes; i++) v->bytes[r * 64 + i] = (unsigned char)(seed * 31 + r * 7 + i);
    if (width == ZMM) v->mask = 0x0123456789abcdeful ^ seed;
}

typedef struct {
    const char *name;
    void (*body)(void);
    pthread_t thread;
    atomic_int tid;
    long rounds;
    int wrong_registers, wrong_result;
} Thread;

static atomic_int stop;
static int pipe_fds[2], word;
static __thread volatile long handled;
static long handled_by[4];
static Thread threads[4] = {{"computing", compute_body}, {"making calls", calls_body}, {"reading", read_body},
                            {"waiting for a futex", futex_body}};

static void no_body(void) {}

static void handler(int signal) {
    (void)signal;
    Vectors in, out;
    fill(&in, 200 + (unsigned)handled);
    with_vectors(no_body, &in, &out, 0, 0, 0, 0);
    syscall(SYS_getppid);
    handled++;
}

static void *thread_main(void *arg) {
    Thread *me = arg;
    unsigned char next = 0, byte = 0;
    struct timespec moment = {0, 200000};
    atomic_store(&me->tid, (int)syscall(SYS_gettid));
    for (unsigned turn = 0; !atomic_load(&stop); turn++, me->rounds++) {
        Vectors in, out;
        fill(&in, turn);
        memset(&out, 0, sizeof out);
        int reads = me->body == read_body;
        long a = reads ? pipe_fds[0] : (long)&word;
        long b = reads ? (long)&byte : FUTEX_WAIT;
        long c = reads ? 1 : 0;
        long result = with_vectors(me->body, &in, &out, a, b, c, (long)&moment);
        me->wrong_registers += !!memcmp(&in, &out, sizeof in);
        if (reads) me->wrong_result += result != 1 || byte != next++;
        if (me->body == calls_body) me->wrong_result += result != 0;
        if (me->body == futex_body) me->wrong_result += result != -ETIMEDOUT && result != -EINTR;
    }
    handled_by[me - threads] = handled;
    return NULL;
}

int main(void) {
    const char *asked = getenv("STORM_ROUNDS");
    long rounds = asked ? atol(asked) : 1500;
    __builtin_cpu_init();
    width = __builtin_cpu_supports("avx512bw") ? ZMM : __builtin_cpu_supports("avx") ? YMM : XMM;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK("a handler and a pipe", !sigaction(SIGUSR1, &action, NULL) && !pipe(pipe_fds));
    int good = 1;
    for (int i = 0; i < 4; i++) {
        good &= !pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]);
        while (!atomic_load(&threads[i].tid)) sched_yield();
    }
    CHECK("threads in four states", good);
    unsigned char byte = 0;
    struct timespec pace = {0, 100000};
    for (long i = 0; i < rounds; i++) {
        for (int t = 0; t < 4; t++) good &= !syscall(SYS_tgkill, getpid(), threads[t].tid, SIGUSR1);
        if (i % 4 == 0) good &= write(pipe_fds[1], &byte, 1) == 1, byte++;
        nanosleep(&pace, NULL);
    }
    CHECK("signals are sent, bytes too", good);
    atomic_store(&stop, 1);
    CHECK("the last byte", write(pipe_fds[1], &byte, 1) == 1);
    for (int i = 0; i < 4; i++) {
        char name[96];
        pthread_join(threads[i].thread, NULL);
        snprintf(name, sizeof name, "vector registers survive signals while %s", threads[i].name);
        CHECK(name, threads[i].rounds > 0 && threads[i].wrong_registers == 0);
        snprintf(name, sizeof name, "results survive them while %s", threads[i].name);
        CHECK(name, threads[i].wrong_result == 0);
        snprintf(name, sizeof name, "signals are handled while %s", threads[i].name);
        CHECK(name, handled_by[i] > 0);
    }
    return done();
}
