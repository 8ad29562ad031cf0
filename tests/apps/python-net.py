# TCP and UDP of the loopback: http.server, urllib, asyncio, datagrams, refusals; addresses of both families.
import asyncio, http.server, socket, threading, urllib.error, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (self.path * 1000).encode(); self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])); self.send_response(201); self.send_header("Content-Length", "7"); self.end_headers(); self.wfile.write(b"%07d" % len(body))
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler); port = server.server_address[1]
threading.Thread(target=server.serve_forever, daemon=True).start()
for n in range(20): assert len(urllib.request.urlopen(f"http://127.0.0.1:{port}/page{n}").read()) == 1000 * len(f"/page{n}")
print(urllib.request.urlopen(f"http://localhost:{port}/", data=b"x" * 3000000).read(), server.server_address[0])
server.shutdown(); server.server_close()
try: urllib.request.urlopen(f"http://127.0.0.1:{port}/")
except urllib.error.URLError as e: print(e.reason.strerror)
async def main():
    async def echo(r, w):
        while line := await r.readline(): w.write(line.upper()); await w.drain()
        w.close(); await w.wait_closed()
    s = await asyncio.start_server(echo, "localhost", 0, family=socket.AF_INET); port = s.sockets[0].getsockname()[1]
    async def client(n):
        r, w = await asyncio.open_connection("127.0.0.1", port)
        for i in range(20): w.write(b"line %d of %d\n" % (i, n)); assert await r.readline() == b"LINE %d OF %d\n" % (i, n)
        w.close(); await w.wait_closed(); return n
    print(sum(await asyncio.gather(*(client(n) for n in range(50))))); s.close(); await s.wait_closed()
    loop = asyncio.get_running_loop(); got = loop.create_future()
    class Server(asyncio.DatagramProtocol):
        def connection_made(self, t): self.t = t
        def datagram_received(self, data, addr): self.t.sendto(data[::-1], addr)
    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr): got.set_result(data)
    t, _ = await loop.create_datagram_endpoint(Server, local_addr=("::1", 0)); c, _ = await loop.create_datagram_endpoint(Client, remote_addr=t.get_extra_info("sockname")[:2])
    c.sendto(b"datagram"); print(await asyncio.wait_for(got, 5)); c.close(); t.close()
asyncio.run(main())
with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as s:
    a = socket.create_connection(("127.0.0.1", s.getsockname()[1])); b, peer = s.accept(); print(peer[0], a.getpeername()[0]); b.sendall(b"z" * 500000) if False else b.close(); print(a.recv(9)); a.close()
with socket.socket() as s:
    s.settimeout(1); print(s.connect_ex(("127.0.0.1", 1)), [i[1] for i in socket.if_nameindex()][:1])
