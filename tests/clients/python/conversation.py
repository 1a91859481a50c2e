"""Sends many random messages over one socket, while it reads their echoes, and fails at the first that differs.

The messages come from a seed, so that a run that failed can be had again; every eighth is longer than a TLS record, four are a mebibyte.
"""

import argparse
import asyncio
import random
import ssl
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect

# Sends run ahead of their echoes by this many messages.
WINDOW = 64


def size(rng, number):
    if number % 2500 == 1000:
        return 1 << 20
    if rng.randrange(10) < 7:
        return rng.randrange(126)
    if rng.randrange(3) < 2:
        return rng.randrange(4000)
    return rng.randrange(70001)


def message(rng, number):
    data = rng.randbytes(size(rng, number))
    return data if rng.randrange(2) else data.hex()[: len(data)]


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("address", help="HOST:PORT to connect to, whatever the URL says")
    parser.add_argument("ca")
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    address = urlsplit(f"//{arguments.address}")
    tls = ssl.create_default_context(cafile=arguments.ca)
    rng = random.Random(arguments.seed)
    underway = asyncio.Queue(WINDOW)
    total = 0
    options = {"ssl": tls, "proxy": None, "max_size": None, "compression": None}
    async with connect(arguments.url, host=address.hostname, port=address.port, **options) as socket:

        async def send():
            for number in range(arguments.count):
                sent = message(rng, number)
                await underway.put(sent)
                await socket.send(sent)

        sending = asyncio.create_task(send())
        for number in range(arguments.count):
            sent = await underway.get()
            echo = await socket.recv()
            if echo != sent:
                sys.exit(f"echo {number} differs: {type(echo)} of {len(echo)} for {type(sent)} of {len(sent)}")
            total += len(echo)
        await sending
    print(f"done: {arguments.count} messages, {total} bytes")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
