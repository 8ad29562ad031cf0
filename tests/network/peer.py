# Outside the sandbox: serves the guest, then is its client, then attacks it, and is its client again.
import hashlib
import os
import socket
import sys
import threading
import time

INTERFACE = "eth0"


def stream(server):
    while True:
        connection, _ = server.accept()
        data = connection.makefile("rb").read()
        connection.sendall(hashlib.sha256(data).hexdigest().encode())
        connection.close()


def datagram(server):
    while True:
        data, sender = server.recvfrom(70000)
        server.sendto(data, sender)


def serve():
    for family, host in ((socket.AF_INET, "10.77.0.1"), (socket.AF_INET6, "fd77::1")):
        tcp = socket.create_server((host, 5000), family=family)
        threading.Thread(target=stream, args=(tcp,), daemon=True).start()
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((host, 5001))
        threading.Thread(target=datagram, args=(udp,), daemon=True).start()


def be_client(host, size):
    data = os.urandom(size)
    connection = socket.create_connection((host, 8080), timeout=20)
    connection.sendall(size.to_bytes(4, "big") + data)
    answer = connection.makefile("rb").read().decode()
    assert answer == hashlib.sha256(data).hexdigest(), host


def wait_for_guest():
    for _ in range(600):
        try:
            return be_client("10.77.0.2", 1)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the guest does not serve")


def checks(host):
    be_client(host, 5_000_000)
    for _ in range(50):
        be_client(host, 10)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    lost = socket.socket(family, socket.SOCK_DGRAM)
    lost.settimeout(10)
    lost.connect((host, 99))
    lost.send(b"?")
    try:
        lost.recv(1)
    except ConnectionRefusedError:
        return
    raise AssertionError("nobody has that port")


def checksum(data):
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def syn(source, port):
    head = bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]) + b"\0\0" + source + bytes([10, 77, 0, 2])
    head = head[:10] + checksum(head) + head[12:]
    tcp = os.urandom(2) + port.to_bytes(2, "big") + os.urandom(4) + bytes(4) + bytes([0x50, 2, 0xFF, 0xFF]) + bytes(4)
    pseudo = source + bytes([10, 77, 0, 2, 0, 6, 0, 20])
    return head + tcp[:16] + checksum(pseudo + tcp) + tcp[18:]


def attack():
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind((INTERFACE, 0))
    with open("/proc/net/arp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    target = next(bytes.fromhex(row[3].replace(":", "")) for row in rows if row[0] == "10.77.0.2")
    own = link.getsockname()[4]
    frame = target + own + b"\x08\0"
    # A flood of SYNs, from everybody, to a port that listens; and a scan of all ports.
    for _ in range(20000):
        link.send(frame + syn(bytes([10, 77, 0]) + os.urandom(1), 8080))
    for port in range(1, 20000):
        link.send(frame + syn(bytes([10, 77, 0, 1]), port))
    # What makes no sense, in many ways.
    good = syn(bytes([10, 77, 0, 9]), 8080)
    for n in range(20000):
        broken = bytearray(good + os.urandom(n % 64))
        broken[n % len(broken)] ^= 1 + n % 255
        link.send(target + own + [b"\x08\0", b"\x86\xdd", b"\x08\x06"][n % 3] + bytes(broken))
    # Readers that do not read.
    slow = [socket.create_connection(("10.77.0.2", 8080), timeout=20) for _ in range(50)]
    return slow


serve()
print("ready", flush=True)
wait_for_guest()
for address in ("10.77.0.2", "fd77::2"):
    checks(address)
print("checked", flush=True)
if "attack" in sys.argv:
    kept = attack()
    checks("10.77.0.2")
    print("attacked", flush=True)
socket.create_connection(("10.77.0.2", 8081), timeout=20)
