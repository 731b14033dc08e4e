# SPDX-License-Identifier: MIT
"""A server of HTTP/1.0 on this machine: GET /BYTES/MILLISECONDS gives so many bytes after so long.

It prints its port, and ends when its standard input does."""

import asyncio
import sys


async def answer(reader, writer):
    path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
    size, delay = map(int, path.split("/")[1:3])
    await asyncio.sleep(delay / 1000)
    text = (b"the quick brown fox jumps over the lazy dog " * (size // 44 + 1))[:size]
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size + text)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
