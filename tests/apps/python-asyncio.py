# asyncio: tasks, timers, subprocesses, Unix and TCP streams, signals.
import asyncio, os, signal, socket

async def unix():
    async def echo(reader, writer):
        writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
    async with await asyncio.start_unix_server(echo, "sock"):
        async def ask(i):
            r, w = await asyncio.open_unix_connection("sock")
            w.write(f"line {i}\n".encode()); answer = await r.readline(); w.close(); return answer.decode().strip()
        print(await asyncio.gather(*[ask(i) for i in range(5)]))

async def main():
    loop = asyncio.get_running_loop()
    async def nap(i): await asyncio.sleep(i / 100); return i
    print(await asyncio.gather(*[nap(i) for i in (5, 1, 3)]))
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.1)
    except asyncio.TimeoutError:
        print("timeout")
    p = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    print(await p.communicate(b"through cat"), p.returncode)
    await unix()
    got = asyncio.Event(); loop.add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1); await asyncio.wait_for(got.wait(), 5); print("signal")
    print(await loop.run_in_executor(None, sum, range(1000)))
    a, b = socket.socketpair(); a.setblocking(False); b.setblocking(False)
    await loop.sock_sendall(a, b"pair"); print(await loop.sock_recv(b, 10))
    q = asyncio.Queue(); asyncio.create_task(q.put(1)); print(await q.get())

asyncio.run(main())
