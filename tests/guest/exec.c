/* fork(2), execve(2), wait(2), sessions and ids. */
#include "guest.h"
extern char **environ;
int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "again")) /* after exec */
        return getenv("ONLY") && !getenv("PATH") && fcntl(20, F_GETFD) == -1 && !fcntl(21, F_GETFD) ? atoi(argv[2]) : 1;
    int status;
    pid_t parent = getpid();
    CHILD(status, _exit(300));
    CHECK("an exit status has 8 bits", WIFEXITED(status) && WEXITSTATUS(status) == 44);
    CHILD(status, _exit(getppid() != parent || getpid() == parent));
    CHECK("a child has its own id and its parent's", status == 0);
    FAILS("no children", wait(&status), ECHILD);
    FAILS("not our child", waitpid(1, &status, 0), ECHILD);
    pid_t child = fork();
    if (child == 0) { pause(); _exit(0); }
    CHECK("WNOHANG", waitpid(child, &status, WNOHANG) == 0);
    kill(child, SIGKILL);
    siginfo_t info;
    CHECK("WNOWAIT leaves it", waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0 && info.si_code == CLD_KILLED);
    CHECK("a zombie can be signalled", kill(child, 0) == 0);
    CHECK("and is reaped once", waitpid(child, &status, 0) == child && waitpid(child, &status, 0) == -1);
    char self[PATH_MAX] = {0};
    CHECK("/proc/self/exe", readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    dup3(1, 20, O_CLOEXEC);
    dup2(1, 21);
    char *args[] = {"x", "again", "17", NULL}, *env[] = {"ONLY=1", NULL};
    CHILD(status, { execve(self, args, env); _exit(2); });
    CHECK("execve passes arguments, environment and descriptors", WIFEXITED(status) && WEXITSTATUS(status) == 17);
    FAILS("exec of a missing file", execve("/nowhere", args, env), ENOENT);
    FAILS("exec of a directory", execve("/", args, env), EACCES);
    enter_scratch();
    int fd = open("script", O_WRONLY | O_CREAT, 0700);
    dprintf(fd, "#!%s again\n", self);
    close(fd);
    CHILD(status, { execve("script", (char *[]){"script", NULL}, env); _exit(2); });
    CHECK("a script runs its interpreter with its path", WIFEXITED(status) && WEXITSTATUS(status) == atoi("script"));
    fd = open("junk", O_WRONLY | O_CREAT, 0700);
    CHECK("junk", write(fd, "junk", 4) == 4 && close(fd) == 0);
    FAILS("exec of junk", execve("junk", args, env), ENOEXEC);
    CHECK("mode", chmod("junk", 0600) == 0);
    FAILS("exec of a file that is not executable", execve("junk", args, env), EACCES);
    unlink("junk");
    unlink("script");
    CHILD(status, _exit(setsid() != getpid() || getsid(0) != getpid() || getpgrp() != getpid()));
    CHECK("setsid leads a session", status == 0);
    CHILD(status, { setpgid(0, 0); _exit(getpgrp() != getpid() || setsid() != -1 || errno != EPERM); });
    CHECK("a group leader cannot", status == 0);
    child = vfork();
    if (child == 0) _exit(6);
    CHECK("vfork", waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 6);
    CHECK("prctl names", prctl(PR_SET_NAME, "a-name-that-is-too-long") == 0);
    char name[16];
    CHECK("cut to 15", prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "a-name-that-is-"));
    FAILS("unknown call", syscall(9999), ENOSYS);
    leave_scratch();
    return done();
}
