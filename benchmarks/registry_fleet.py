"""Many bots that poll MLflow's registry for three coins, as fast as it answers: how long after a move each has seen it.

    python -m benchmarks.registry_fleet < SETUP

SETUP is one line of JSON: port, headers, paths, count, connections. The bots take their turns on a few kept connections, one
after the other and without a pause, which is the rate it can serve. Prints a line for each version that all have seen.
"""

import asyncio
import json
import sys
from time import monotonic_ns
from typing import Any

import uvloop

from benchmarks.load import request


async def poll(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]
) -> list[str]:
    """Each coin's version."""
    versions = []
    for asked in requests:
        writer.write(asked)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.splitlines()[0]:
            raise RuntimeError(head)
        (length,) = [line.split(":")[1] for line in head.splitlines() if line.startswith("content-length:")]
        versions.append(json.loads(await reader.readexactly(int(length)))["model_version"]["version"])
    return versions


async def run(setup: dict[str, Any]) -> None:
    requests = [request(path, setup["headers"]) for path in setup["paths"]]
    waiting: asyncio.Queue[int] = asyncio.Queue()
    for bot in range(setup["count"]):
        waiting.put_nowait(bot)
    seen: dict[int, str] = {}
    moments: dict[str, list[int]] = {}

    async def in_turns() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup["port"])
        while True:
            bot = await waiting.get()
            versions = await poll(reader, writer, requests)
            # Versions of two moves together are a mixture, which nobody may run: it has not seen the move yet.
            if len(set(versions)) == 1 and seen.get(bot) != versions[0]:
                seen[bot] = versions[0]
                moments.setdefault(versions[0], []).append(monotonic_ns())
                if len(moments[versions[0]]) == setup["count"]:
                    found = {"what": "flipped", "revision": int(versions[0]), "at": moments.pop(versions[0])}
                    print(json.dumps(found), flush=True)
            waiting.put_nowait(bot)

    async with asyncio.TaskGroup() as group:
        for _ in range(setup["connections"]):
            group.create_task(in_turns())


if __name__ == "__main__":
    uvloop.run(run(json.loads(sys.stdin.readline())))
