# In the sandbox: who can be reached at port 8003, by address and by name, before and after the rules are replaced.
import socket
import sys


def reach(host):
    try:
        socket.create_connection((host, 8003), timeout=10).close()
    except PermissionError:
        return "denied"
    except socket.gaierror:
        return "unknown"
    return "reached"


print(reach("10.77.0.1"), reach("other.test"), reach("peer.test"), reach("10.77.0.1"), flush=True)
sys.stdin.readline()
print(reach("10.77.0.1"), reach("peer.test"), flush=True)
