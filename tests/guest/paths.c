/* path_resolution(7): links, loops, lengths, renames, directories. */
#include "guest.h"
#include <dirent.h>
int main(void) {
    enter_scratch();
    struct stat st;
    char buf[PATH_MAX + 16];
    CHECK("mkdir", mkdir("d", 0755) == 0);
    FAILS("mkdir again", mkdir("d", 0755), EEXIST);
    CHECK("create inside", close(open("d/f", O_CREAT | O_WRONLY, 0600)) == 0);
    FAILS("rmdir of a full directory", rmdir("d"), ENOTEMPTY);
    FAILS("rmdir of a file", rmdir("d/f"), ENOTDIR);
    FAILS("unlink of a directory", unlink("d"), EISDIR);
    CHECK("symlink", symlink("d/f", "s") == 0);
    CHECK("readlink", readlink("s", buf, sizeof buf) == 3 && !memcmp(buf, "d/f", 3));
    CHECK("readlink truncates", readlink("s", buf, 1) == 1);
    FAILS("readlink of a file", readlink("d/f", buf, sizeof buf), EINVAL);
    CHECK("lstat does not follow", lstat("s", &st) == 0 && S_ISLNK(st.st_mode) && st.st_size == 3);
    CHECK("stat follows", stat("s", &st) == 0 && S_ISREG(st.st_mode));
    FAILS("O_NOFOLLOW on a link", open("s", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK("a link to itself", symlink("loop", "loop") == 0);
    FAILS("loops end", stat("loop", &st), ELOOP);
    FAILS("trailing slash on a file", stat("d/f/", &st), ENOTDIR);
    CHECK("trailing slash on a directory", stat("d/", &st) == 0);
    FAILS("empty path", stat("", &st), ENOENT);
    memset(buf, 'x', sizeof buf);
    buf[256] = 0;
    FAILS("long component", stat(buf, &st), ENAMETOOLONG);
    for (int i = 0; i < PATH_MAX; i += 2) { buf[i] = '.'; buf[i + 1] = '/'; }
    buf[PATH_MAX] = 0;
    FAILS("long path", stat(buf, &st), ENAMETOOLONG);
    CHECK("hard link", link("d/f", "h") == 0 && stat("h", &st) == 0 && st.st_nlink == 2);
    FAILS("hard link onto a name", link("d/f", "h"), EEXIST);
    CHECK("rename onto itself by another name does nothing", rename("d/f", "h") == 0 && stat("d/f", &st) == 0);
    CHECK("rename replaces", close(open("g", O_CREAT | O_WRONLY, 0600)) == 0 && rename("g", "h") == 0);
    CHECK("and the old link count falls", stat("d/f", &st) == 0 && st.st_nlink == 1);
    FAILS("rename of a directory into itself", rename("d", "d/e"), EINVAL);
    FAILS("rename of a file onto a directory", rename("h", "d"), EISDIR);
    FAILS("rename of a directory onto a file", rename("d", "h"), ENOTDIR);
    FAILS("rename without replacing", syscall(SYS_renameat2, AT_FDCWD, "h", AT_FDCWD, "s", 1), EEXIST);
    int at = open("d", O_RDONLY | O_DIRECTORY);
    CHECK("fstatat below a descriptor", fstatat(at, "f", &st, 0) == 0);
    CHECK("dot-dot leaves it", fstatat(at, "../s", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode));
    int seen = 0;
    DIR *dir = opendir(".");
    for (struct dirent *e; dir && (e = readdir(dir));) seen++;
    CHECK("getdents sees every name once", seen == 6); /* . .. d s loop h */
    closedir(dir);
    CHECK("getcwd", getcwd(buf, sizeof buf) && !strcmp(buf, scratch_path));
    FAILS("getcwd into too little", syscall(SYS_getcwd, buf, 3), ERANGE);
    CHECK("chdir and back", chdir("d") == 0 && chdir("..") == 0 && stat("d", &st) == 0);
    CHECK("tidy up", !unlink("h") && !unlink("s") && !unlink("loop") && !unlink("d/f") && !rmdir("d"));
    FAILS("a removed directory takes no names", openat(at, "n", O_CREAT | O_WRONLY, 0600), ENOENT);
    leave_scratch();
    return done();
}
