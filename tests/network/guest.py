# In the sandbox: talks to the peer outside (10.77.0.1, fd77::1), then serves it until told to end.
import hashlib
import socket
import sys
import threading

done = threading.Event()


def client(host, family):
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    datagram.settimeout(10)
    for size in (1, 1400, 3000, 60000):
        datagram.sendto(b"x" * size, (host, 5001))
        assert datagram.recv(70000) == b"x" * size
    data = bytes(range(256)) * 20000
    stream = socket.create_connection((host, 5000), timeout=20)
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)
    assert stream.makefile("rb").read().decode() == hashlib.sha256(data).hexdigest()
    try:
        socket.create_connection((host, 5999), timeout=10)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("nobody listens there")
    print("client", "6" if family == socket.AF_INET6 else "4", "ok", flush=True)


def one(stream):
    digest = hashlib.sha256()
    left = int.from_bytes(stream.recv(4, socket.MSG_WAITALL), "big")
    while left:
        part = stream.recv(min(left, 65536))
        if not part:
            return
        digest.update(part)
        left -= len(part)
    stream.sendall(digest.hexdigest().encode())
    stream.close()


def serve(server):
    while True:
        stream, _ = server.accept()
        threading.Thread(target=one, args=(stream,), daemon=True).start()


if "denied" in sys.argv:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_INET, kind).connect(("10.77.0.1", 7))
            assert kind == socket.SOCK_DGRAM
            socket.socket(socket.AF_INET, kind).sendto(b"?", ("10.77.0.1", 7))
        except PermissionError:
            continue
        raise AssertionError("port 7 may be reached")
    print("denied ok", flush=True)
for family, host in ((socket.AF_INET, "10.77.0.1"), (socket.AF_INET6, "fd77::1")):
    client(host, family)
for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "fd77::2")):
    server = socket.create_server((host, 8080), family=family, backlog=64)
    threading.Thread(target=serve, args=(server,), daemon=True).start()
end = socket.create_server(("10.77.0.2", 8081))
print("serving", flush=True)
end.accept()
print("end", flush=True)
