# asyncio-echo.py HOST [use]: an echo server, or two hundred connections to it at once.
import asyncio
import sys

HOST, PORT = sys.argv[1], 8003


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def one(n):
    reader, writer = await asyncio.open_connection(HOST, PORT)
    data = bytes([n]) * 20000
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    writer.close()


async def main():
    if len(sys.argv) > 2:
        await asyncio.gather(*(one(n) for n in range(200)))
        print("200 connections")
    else:
        server = await asyncio.start_server(echo, HOST, PORT, backlog=256)
        await server.serve_forever()


asyncio.run(main())
