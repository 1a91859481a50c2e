"""Talks to an echo backend with `websockets` and prints what it saw, a JSON line an event.

The same run directly and through the proxy must print the same lines: tests/clients.rs compares them. So nothing that
differs between the two (addresses, times, random numbers) is printed.
"""

import argparse
import asyncio
import hashlib
import json
import ssl
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BIG = bytes(i * 7 % 251 for i in range(1 << 20))


def say(event, **facts):
    print(json.dumps({"event": event, **facts}, sort_keys=True), flush=True)


def seen(message):
    """Kind, length and digest: a mebibyte in a transcript helps nobody."""
    kind = "text" if isinstance(message, str) else "binary"
    data = message.encode() if kind == "text" else message
    return {"kind": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class Peer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.tls = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None

    def open(self, query="", **options):
        url, host, port = self.arguments.url, self.arguments.host, self.arguments.port
        return connect(f"{url}?quiet{query}", host=host, port=port, ssl=self.tls, proxy=None, max_size=None, **options)

    async def messages(self, name, **options):
        async with self.open(**options) as socket:
            extensions = socket.response.headers.get("Sec-WebSocket-Extensions")
            say("open", case=name, status=socket.response.status_code, extensions=extensions)
            for message in ["text ✓", "", b"", bytes(range(256)), "long " * 20000, BIG]:
                await socket.send(message)
                back = await socket.recv()
                say("echo", **seen(back), same=back == message)
            # An iterable goes out as one message in several frames.
            await socket.send(["one ", "two ", "", "three"])
            say("echo of fragments", text=await socket.recv())
            await socket.send([BIG[:70000], BIG[70000:200000], BIG[200000:]])
            back = await socket.recv()
            say("echo of fragments", **seen(back), same=back == BIG)
            await asyncio.wait_for(await socket.ping(b"are you there"), 10)
            say("pong")
        say("closed", case=name, code=socket.close_code, reason=socket.close_reason)

    async def close_from_here(self, code):
        async with self.open() as socket:
            await socket.send("before the close")
            say("echo", text=await socket.recv())
            await socket.close(code, "from here")
            say("closed", sent=code, received=socket.protocol.close_rcvd.code, reason=socket.protocol.close_rcvd.reason)

    async def close_from_there(self, code):
        async with self.open(f"&close={code}") as socket:
            try:
                await socket.recv()
                say("a message instead of a close")
            except ConnectionClosed as closed:
                say("closed", received=closed.rcvd.code, reason=closed.rcvd.reason)

    async def subprotocol(self):
        async with self.open(subprotocols=["chat.v1", "chat.v2"]) as socket:
            say("open", subprotocol=socket.subprotocol)
            await socket.send("with a subprotocol")
            say("echo", text=await socket.recv())


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("address", help="HOST:PORT to connect to, whatever the URL says")
    parser.add_argument("--ca")
    arguments = parser.parse_args()
    address = urlsplit(f"//{arguments.address}")
    arguments.host, arguments.port = address.hostname, address.port
    peer = Peer(arguments)
    await peer.messages("plain", compression=None)
    await peer.messages("permessage-deflate offered", compression="deflate")
    for code in [1000, 4001]:
        await peer.close_from_here(code)
        await peer.close_from_there(code)
    await peer.subprotocol()
    say("done")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
