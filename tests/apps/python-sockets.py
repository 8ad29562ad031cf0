# Unix sockets: streams, datagrams, packets, passed descriptors, readiness; no network needed.
import array, os, selectors, socket, threading
a, b = socket.socketpair(); a.sendall(b"x" * 100000) if False else a.sendall(b"hello"); print(b.recv(100)); a.shutdown(socket.SHUT_WR); print(b.recv(1))
s = socket.socket(socket.AF_UNIX); s.bind("s"); s.listen(5)
def client():
    c = socket.socket(socket.AF_UNIX); c.connect("s"); c.sendall(b"q" * 300000); c.shutdown(socket.SHUT_WR); print(c.recv(10)); c.close()
t = threading.Thread(target=client); t.start(); c, _ = s.accept(); n = 0
while d := c.recv(65536): n += len(d)
c.sendall(str(n).encode()); c.close(); t.join()
d1, d2 = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); d1.send(b"one"); d1.send(b"two"); print(d2.recv(2), d2.recv(10))
q1, q2 = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); q1.send(b"packet"); print(q2.recvmsg(3)[:1], q2.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET)
r, w = os.pipe(); socket.send_fds(a2 := socket.socketpair()[0], [b"f"], [w]) if False else None
x, y = socket.socketpair(); socket.send_fds(x, [b"f"], [w]); m, fds, _, _ = socket.recv_fds(y, 10, 4); os.write(fds[0], b"via"); print(m, len(fds), os.read(r, 10))
import struct; print(struct.unpack("3i", y.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] == os.getpid())
try: socket.socket(socket.AF_UNIX).connect("nowhere")
except OSError as e: print(e.strerror)
y.setblocking(False)
try: y.recv(1)
except BlockingIOError: print("would block")
sel = selectors.DefaultSelector(); sel.register(y, selectors.EVENT_READ, "y"); print(sel.select(0)); x.send(b"1"); print([k.data for k, _ in sel.select(5)])
x.settimeout(0.1)
try: x.recv(1)
except TimeoutError: print("timed out")
l = socket.socket(socket.AF_UNIX); l.bind("\0abstract-rampart"); l.listen(); z = socket.socket(socket.AF_UNIX); z.connect("\0abstract-rampart"); print(z.getpeername())
