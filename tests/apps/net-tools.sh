# What ss and ip show of the loopback and of sockets on it.
# needs: ss ip python3
ip addr show lo; ip link show lo | head -1; ip -6 addr show dev lo | grep inet6
python3 -c '
import socket, subprocess
l = socket.create_server(("127.0.0.1", 7392)); c = socket.create_connection(("127.0.0.1", 7392)); s, _ = l.accept()
six = socket.create_server(("::1", 7392), family=socket.AF_INET6)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 7392))
c.sendall(b"unread")
run = lambda *words: print(subprocess.run(words, capture_output=True, text=True).stdout, flush=True)
run("ss", "-Htln", "sport", "=", ":7392"); run("ss", "-Huan", "sport", "=", ":7392")
print(subprocess.run(["ss", "-Htan", "sport", "=", ":7392"], capture_output=True, text=True).stdout.count("ESTAB"))
print([line.split()[3:5] for line in open("/proc/net/tcp") if line.split()[1] == "0100007F:1CE0"])
'
