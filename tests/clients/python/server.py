"""An echo backend on `websockets` that agrees to permessage-deflate and to the subprotocol chat.v2: `server.py ADDRESS`."""

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    close = parse_qs(urlsplit(socket.request.path).query).get("close")
    if close:
        await socket.close(int(close[0]), "asked for")
        return
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


def choose(_socket, offered):
    # `subprotocols=["chat.v2"]` would refuse clients that offer none.
    return "chat.v2" if "chat.v2" in offered else None


async def main():
    async with serve(
        echo, sys.argv[1], 0, select_subprotocol=choose, compression="deflate", max_size=None
    ) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await server.serve_forever()


asyncio.run(main())
