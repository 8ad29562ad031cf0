/*
 * Random machine code, to be run in a sandbox and nowhere else: any bytes are executed, with any registers, in all
 * kinds of mappings, and what is left of a round is killed. It refuses to run as anything but the first process of a
 * kernel that calls itself `rampart`.
 *
 *   code SEED ROUNDS [verbose]
 *
 * A round is a child that maps a few pages, fills them with bytes (half of them instructions that ask for more than
 * user code may have: of ring 0, of ports, of other modes, of hypervisors) and jumps into them. What happens follows
 * from SEED, as far as a processor is deterministic. Prints `ok` at the end: the kernel is still there, and its first
 * process has come to no harm.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES 4
#define LEN (PAGES * 4096)
#define ROUND_MS 100

static uint64_t state;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

static uint64_t below(uint64_t bound) { return next() % bound; }

/* A length, and bytes. Those that take an operand find random ones behind them. */
static const unsigned char INSTRUCTIONS[][9] = {
    "\2\x0f\x05", "\2\x0f\x34", "\2\x0f\x35", "\2\x0f\x07", "\3\x48\x0f\x07", /* syscall sysenter sysexit sysret */
    "\1\xcd", "\2\xcd\x80", "\2\xcd\x0e", "\1\xcc", "\1\xf1", "\1\xce",       /* int, of all kinds */
    "\1\xf4", "\1\xfa", "\1\xfb", "\2\x48\xcf", "\1\xcf", "\1\xcb",           /* hlt cli sti iret far ret */
    "\2\x0f\x30", "\2\x0f\x32", "\2\x0f\x33", "\2\x0f\x31", "\3\x0f\x01\xf9", /* wrmsr rdmsr rdpmc rdtsc rdtscp */
    "\3\x0f\x22\xc0", "\3\x0f\x22\xd8", "\3\x0f\x22\xe0", "\3\x0f\x20\xd8",   /* control registers */
    "\3\x0f\x23\xf8", "\3\x0f\x21\xf8", "\2\x0f\x06", "\2\x0f\x09",           /* debug registers clts wbinvd */
    "\3\x0f\x01\x10", "\3\x0f\x01\x18", "\3\x0f\x01\x38", "\3\x0f\x01\x00",   /* lgdt lidt invlpg sgdt */
    "\3\x0f\x00\xd8", "\3\x0f\x00\xd0", "\3\x0f\x00\xc8", "\3\x0f\x01\xf0",   /* ltr lldt str lmsw */
    "\3\x0f\x01\xf8", "\3\x0f\x01\xd1", "\3\x0f\x01\xd0", "\3\x0f\x01\xcb",   /* swapgs xsetbv xgetbv stac */
    "\3\x0f\x01\xc1", "\3\x0f\x01\xd9", "\3\x0f\x01\xd8", "\3\x0f\x01\xc2",   /* vmcall vmmcall vmrun vmlaunch */
    "\1\xe4", "\1\xe6", "\1\xec", "\1\xee", "\2\xf3\x6c", "\2\xf3\x6e",       /* ports */
    "\2\x0f\xa2", "\2\x0f\x0b", "\2\x0f\xff", "\2\x0f\xaa", "\3\x0f\x01\xc8", /* cpuid ud2 ud0 rsm monitor */
    "\3\x8e\xd8", "\3\x8e\xc0", "\3\x8e\xe0", "\3\x8e\xe8", "\2\x8e\xd0",     /* segments */
    "\5\xf3\x48\x0f\xae\xd0", "\5\xf3\x48\x0f\xae\xd8",                       /* wrfsbase wrgsbase */
    "\3\x0f\xae\x28", "\3\x0f\xae\x20", "\3\x0f\xc7\x18", "\3\x0f\xae\x08",   /* xrstor xsave xrstors fxrstor */
    "\2\xff\x28", "\2\xff\x18", "\1\x9d", "\1\x9c", "\2\xf3\xa4", "\2\xf3\xaa", /* far jumps popf pushf movs stos */
    "\4\x48\x0f\xc7\xf0", "\2\xeb\xfe", "\1\xf0", "\1\x66", "\1\x67", "\1\x65", /* rdrand loop prefixes */
    "\3\x0f\xae\xf0", "\1\x9b", "\2\xdb\xe3", "\2\xd9\xf0", "\2\xf7\xf0",     /* fences x87 division */
};
#define INSTRUCTION_COUNT (sizeof INSTRUCTIONS / sizeof *INSTRUCTIONS)

static void fill(unsigned char *bytes) {
    size_t at = 0;
    while (at < LEN) {
        const unsigned char *one = INSTRUCTIONS[below(INSTRUCTION_COUNT)];
        if (below(2) && at + one[0] <= LEN) {
            memcpy(bytes + at, one + 1, one[0]);
            at += one[0];
        } else {
            for (uint64_t n = 1 + below(4); n && at < LEN; n--) bytes[at++] = (unsigned char)next();
        }
    }
}

/* Words that mean something to somebody: pages around here, ends of user space, what backends keep there. */
static uint64_t word(unsigned char *code) {
    static const uint64_t ODD[] = {
        0, 1, 0x1000, 0x10000, 0x70000, 0x7ffe00000000, 0x7ffe10000000, 0x7ffffffff000, 0x7fff00000000,
        0x7fff00001000, 0x7fff00003008, 0x7fff00100ff8, 0x800000000000, 0xffff800000000000, 0xffffffffff600000,
        0xffffffffff600400, 0xfffffffffffff000, 0x33, 0x2b, 0x10, 0xc0000082,
    };
    switch (below(5)) {
    case 0: return next();
    case 1: return below(512);
    case 2: return ODD[below(sizeof ODD / sizeof *ODD)];
    default: return (uint64_t)code + below(LEN);
    }
}

static void no(const char *what) {
    perror(what);
    _exit(3);
}

/* Pages to run code in, and what may be done with them from then on. */
static unsigned char *pages(void) {
    int all = PROT_READ | PROT_WRITE | PROT_EXEC, fd = -1, flags = MAP_PRIVATE;
    uint64_t kind = below(6);
    if (kind == 1) flags = MAP_SHARED;
    if (kind == 0 || kind == 1 || kind == 5) flags |= MAP_ANONYMOUS;
    if (kind >= 2 && kind <= 4) {
        fd = memfd_create("code", 0);
        if (fd < 0 || ftruncate(fd, LEN)) no("memfd");
        if (kind == 3) flags = MAP_SHARED;
    }
    unsigned char *code = mmap(NULL, LEN, all, flags, fd, 0);
    if (code == MAP_FAILED) no("mmap");
    fill(code);
    if (kind == 4 && ftruncate(fd, LEN / 2)) no("ftruncate");
    if (kind == 5 && below(2)) munmap(code + LEN / 2, 4096);
    if (below(3) == 0) mprotect(code, LEN / 2, PROT_READ | PROT_EXEC);
    if (below(4) == 0 && fork() < 0) no("fork");
    return code;
}

/* Jumps to the first of `words` with the rest in registers. */
__attribute__((noreturn)) static void run(uint64_t words[18]) {
    __asm__ volatile("mov %0, %%rsp\n"
                     "pop %%rax; pop %%rbx; pop %%rcx; pop %%rdx; pop %%rsi; pop %%rdi; pop %%rbp\n"
                     "pop %%r8; pop %%r9; pop %%r10; pop %%r11; pop %%r12; pop %%r13; pop %%r14; pop %%r15\n"
                     "popfq\n"
                     "pop %%rsp\n"
                     "jmp *%%r15" ::"r"(words)
                     : "memory");
    __builtin_unreachable();
}

static void child(uint64_t round) {
    state += round * 0x9e3779b97f4a7c15ull | 1;
    for (int i = 0; i < 8; i++) next();
    struct rlimit limit = {1, 1};
    setrlimit(RLIMIT_CPU, &limit);
    limit = (struct rlimit){16, 16};
    setrlimit(RLIMIT_NPROC, &limit);
    limit = (struct rlimit){64 << 20, 64 << 20};
    setrlimit(RLIMIT_AS, &limit);
    unsigned char *code = pages();
    uint64_t words[18];
    for (int i = 0; i < 17; i++) words[i] = word(code);
    words[14] = (uint64_t)code + below(LEN);
    words[15] = below(2) ? 0x202 : next() & 0x254fd7; /* any flags but what nobody may set */
    if (below(8) == 0) words[14] = word(code);
    run(words);
}

static int finished(pid_t pid) {
    struct timespec pause = {0, 1000000};
    for (int i = 0; i < ROUND_MS; i++) {
        if (waitpid(pid, NULL, WNOHANG) == pid) return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

int main(int argc, char **argv) {
    struct utsname name;
    if (argc < 3 || uname(&name) || !strstr(name.release, "rampart") || getpid() != 1) {
        fprintf(stderr, "only as the first process of a sandbox: code SEED ROUNDS\n");
        return 2;
    }
    uint64_t seed = strtoull(argv[1], NULL, 10), rounds = strtoull(argv[2], NULL, 10);
    for (uint64_t round = 0; round < rounds; round++) {
        state = seed * 0x9e3779b97f4a7c15ull + 1;
        if (argc > 3) fprintf(stderr, "round %llu\n", (unsigned long long)round);
        pid_t pid = fork();
        if (pid < 0) no("fork");
        if (!pid) child(round);
        finished(pid);
        /* It, and what came of it. */
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0) {}
    }
    puts("ok");
    return 0;
}
