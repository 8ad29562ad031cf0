# Files: temporary ones, directories, locks, attributes, descriptors, and the errors of each.
import errno, fcntl, os, pathlib, select, shutil, stat, tempfile
with tempfile.TemporaryFile() as f: f.write(b"x" * 5000); f.seek(4990); print(len(f.read()), os.fstat(f.fileno()).st_nlink)
with tempfile.NamedTemporaryFile() as f: print(os.path.exists(f.name), oct(os.stat(f.name).st_mode))
with tempfile.TemporaryDirectory() as d:
    for i in range(50): pathlib.Path(d, f"f{i}").write_text(str(i))
    print(len(os.listdir(d)), sum(int(p.read_text()) for p in pathlib.Path(d).iterdir()), sum(e.stat().st_size for e in os.scandir(d)))
print(os.path.exists(d))
def error(f, *a):
    try: f(*a); return None
    except OSError as e: return errno.errorcode[e.errno]
os.mkdir("d"); open("d/f", "w").close()
print(error(os.rmdir, "d"), error(os.mkdir, "d"), error(os.unlink, "d"), error(open, "d/f/g"), error(os.open, "x", 0), error(os.rename, "d", "d/e"), error(os.open, "x" * 300, 0), error(os.link, "d", "e"), error(os.readlink, "d"))
os.symlink("loop", "loop"); print(error(open, "loop")); os.rename("d/f", "d/g"); os.replace("d/g", "d/f")
a = os.open("d/f", os.O_RDWR); os.pwrite(a, b"abc", 10); print(os.pread(a, 20, 0), os.lseek(a, 0, 2), os.fstat(a).st_size); os.ftruncate(a, 4); print(os.path.getsize("d/f"))
os.utime("d/f", ns=(10**18, 10**18 + 1)); s = os.stat("d/f"); print(s.st_mtime_ns, stat.filemode(s.st_mode)); os.setxattr("d/f", "user.k", b"v") if not error(os.setxattr, "d/f", "user.k", b"v") else None
b = os.dup(a); print(fcntl.fcntl(b, fcntl.F_GETFL) & os.O_ACCMODE, fcntl.fcntl(b, fcntl.F_GETFD)); fcntl.lockf(a, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0: os._exit(error(fcntl.lockf, a, fcntl.LOCK_EX | fcntl.LOCK_NB) in ("EAGAIN", "EACCES"))
print(os.waitpid(pid, 0)[1] >> 8)
fd = os.open(".", os.O_RDONLY); print(sorted(os.listdir(fd)), os.stat("f", dir_fd=os.open("d", os.O_RDONLY)).st_size)
r, w = os.pipe(); os.write(w, b"z"); print(select.select([r], [w], [], 5) == ([r], [w], []), os.writev(w, [b"a", b"b"]), os.read(r, 9))
p = select.epoll(); p.register(r, select.EPOLLIN); print(p.poll(0)); os.write(w, b"q"); print(p.poll(5) == [(r, select.EPOLLIN)])
shutil.copytree("d", "copy"); print(shutil.disk_usage(".").total > 0, os.sendfile(os.open("out", os.O_RDWR | os.O_CREAT), a, 0, 4)); shutil.rmtree("copy"); print(os.access("copy", 0), os.getcwd() == os.path.realpath(os.environ["TMPDIR"]))
