"""Many bots in one process: each on a stream of its own, verifying what comes as the runtime does, then flipping.

    python -m benchmarks.fleet < SETUP

SETUP is one line of JSON: port, public_key, tokens, first, count, bundles (folders), windows. Each bot keeps its own epoch
and set; predictors are loaded ahead, as bots do with what is announced, and shared by the bots of this process, since a
thousand sets would not fit into one machine's memory. A flip is what the client's is: the envelope's signature verified,
the epoch not a step back, every coin's bundle at hand, one assignment; one bot in a hundred decides at once by the new set.

Prints a line for each epoch that all have flipped to, and one when the service has all their acknowledgements.
"""

import asyncio
import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any

import polars as pl
import uvloop

from mlcore import bundle
from mlcore.predictor import Predictor
from runtime.envelope import PublicKeys, Signed, verify
from runtime.errors import EpochRefused, SetRefused

ACKNOWLEDGE_SECONDS = 7.0
"""An acknowledgement is sent at a random moment within these."""
PREDICTS_ONE_IN = 100
LINE_BYTES = 1 << 20


@dataclass
class Fleet:
    """What the bots of this process share."""

    port: int
    keys: PublicKeys
    at_hand: Mapping[str, Predictor]
    window: pl.DataFrame
    count: int
    flips: dict[int, list[int]] = field(default_factory=dict)
    acknowledged: dict[int, list[int]] = field(default_factory=dict)

    def flipped(self, epoch: int, at: int) -> None:
        self._told("flipped", self.flips, epoch, at)

    def heard(self, epoch: int) -> None:
        self._told("acknowledged", self.acknowledged, epoch, monotonic_ns())

    def _told(self, what: str, found: dict[int, list[int]], epoch: int, at: int) -> None:
        moments = found.setdefault(epoch, [])
        moments.append(at)
        if len(moments) == self.count:
            print(json.dumps({"what": what, "epoch": epoch, "at": moments}), flush=True)


class Bot:
    """One bot on its stream."""

    def __init__(self, number: int, token: str, fleet: Fleet) -> None:
        self._number, self._token, self._fleet = number, token, fleet
        self._state: tuple[Signed, Mapping[str, Predictor]] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._fleet.port, limit=LINE_BYTES)
        writer.write(self._request("GET", "/api/v1/active/stream/"))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise RuntimeError(head.decode())
        while True:
            chunk = int(await reader.readline(), 16)
            body = await reader.readexactly(chunk + 2)
            for line in body.split(b"\n"):
                if line.startswith(b"data: "):
                    self._hear(line[6:])

    def _hear(self, data: bytes) -> None:
        signed = verify(data, self._fleet.keys)
        snapshot = signed.snapshot
        before = self._state[0].snapshot if self._state else None
        if before is not None and snapshot.epoch < before.epoch:
            raise EpochRefused("a step back")
        if before is not None and snapshot.content == before.content:
            return
        missing = [coin for coin, model in snapshot.models.items() if model.bundle not in self._fleet.at_hand]
        if missing:
            raise SetRefused(f"not at hand: {missing}")
        self._state = (
            signed,
            {coin: self._fleet.at_hand[model.bundle] for coin, model in snapshot.models.items()},
        )
        self._fleet.flipped(snapshot.epoch, monotonic_ns())
        if self._number % PREDICTS_ONE_IN == 0:
            self._decide()
        if self._acknowledging is not None:
            self._acknowledging.cancel()  # of an epoch that has passed
        self._acknowledging = asyncio.create_task(self._acknowledge())

    def _decide(self) -> None:
        assert self._state is not None
        found = self._state[1]["BTC"].predict(self._fleet.window)
        assert abs(sum(found.probabilities.values()) - 1) < 1e-5

    async def _acknowledge(self) -> None:
        assert self._state is not None
        await asyncio.sleep(random.uniform(0, ACKNOWLEDGE_SECONDS))
        snapshot = self._state[0].snapshot
        said: dict[str, Any] = {
            "instance": f"bot-{self._number}",
            "client_version": "benchmark",
            "service": snapshot.service,
            "epoch": snapshot.epoch,
            "line": snapshot.line,
            "release": snapshot.release,
            "bundles": {coin: model.bundle for coin, model in snapshot.models.items()},
        }
        while not await self._is_heard(json.dumps(said).encode()):
            await asyncio.sleep(random.uniform(0.5, 1.5))
        self._fleet.heard(snapshot.epoch)

    async def _is_heard(self, body: bytes) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._fleet.port)
        try:
            writer.write(self._request("POST", "/api/v1/bots/heartbeat/", body))
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    def _request(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
        about = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        return (head + (about if body else "") + "\r\n").encode() + body


def predictors(folders: list[str]) -> dict[str, Predictor]:
    """Every bundle by its digest, read, loaded and warm."""
    return {bundle.read(Path(folder)).digest: Predictor(Path(folder)) for folder in folders}


async def run(setup: dict[str, Any]) -> None:
    fleet = Fleet(
        port=setup["port"],
        keys=PublicKeys(setup["public_key"]),
        at_hand=predictors(setup["bundles"]),
        window=pl.read_parquet(setup["window"]),
        count=setup["count"],
    )
    tokens, first = setup["tokens"], setup["first"]
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + fleet.count):
            group.create_task(Bot(number, tokens[number % len(tokens)], fleet).follow())


if __name__ == "__main__":
    uvloop.run(run(json.loads(sys.stdin.readline())))
