# Subprocesses: pipes, statuses, environment, working directory, timeouts, signals.
import os, signal, subprocess, sys
run = subprocess.run
print(run(["echo", "hello"], capture_output=True, text=True).stdout, end="")
print(run("exit 7", shell=True).returncode, run(["cat"], input=b"x" * 200000, capture_output=True).stdout.count(b"x"))
p = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(p.communicate(b"shout")[0].decode(), p.returncode)
try:
    run(["sleep", "60"], timeout=0.2)
except subprocess.TimeoutExpired:
    print("timeout")
p = subprocess.Popen(["sleep", "60"]); p.send_signal(signal.SIGTERM); print(p.wait())
try:
    run(["/no/such/program"])
except FileNotFoundError as e:
    print(e.errno, e.filename)
print(run(["env"], env={"ONLY": "1"}, capture_output=True, text=True, executable="/usr/bin/env").stdout, end="")
print(run(["pwd"], cwd="/usr/share", capture_output=True, text=True).stdout, end="")
a = subprocess.Popen(["seq", "1", "1000"], stdout=subprocess.PIPE)
b = subprocess.Popen(["wc", "-l"], stdin=a.stdout, stdout=subprocess.PIPE); a.stdout.close()
print(b.communicate()[0].decode().strip(), a.wait())
print([run([sys.executable, "-c", f"print({i})"], capture_output=True, text=True).stdout.strip() for i in range(3)])
print(run(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.split())
r, w = os.pipe(); os.set_inheritable(w, True)
run(["sh", "-c", f"echo passed >&{w}"], pass_fds=[w]); os.close(w); print(os.read(r, 100))
print(run(["sh", "-c", "kill -SEGV $$"]).returncode, run(["sh", "-c", "ps >/dev/null 2>&1; echo $PPID"], capture_output=True, text=True, start_new_session=True).stdout.strip() == str(os.getpid()))
pid = os.fork()
if pid == 0:
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
