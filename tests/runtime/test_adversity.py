"""Ten ways in which the service, the way to it or the disk can fail a bot. It keeps its last good set and says why.

One test each, over a bot that streams, asks and fetches ahead as it does in earnest; the finer cases of each stand in
test_envelope, test_refusals and test_cache.
"""

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from securesystemslib.signer import CryptoSigner

from crpbot_runtime import Active, CacheFailed, Client, EnvelopeRefused, SnapshotExpired
from crpbot_runtime.errors import ClientError, FileRefused, RevisionRefused, SetRefused
from crpbot_runtime.protocol.events import MAX_EVENT_BYTES
from tests.runtime.conftest import MakeBot, ReleaseOf, wait_until, watching
from tests.runtime.stub_service import SIGNED_PATH, STREAM_PATH, TOKEN, VALID_FOR, Release, StubService
from tests.small_disk import small_disk

pytestmark = pytest.mark.slow

Refuses = Callable[..., None]

FOLLOW = """
import sys, threading
from crpbot_runtime import Client

client = Client(*sys.argv[1:], timeout_s=20, spread_s=0)
client.watch(lambda active: print(active.release, flush=True), every_s=0.02)
"""


@pytest.fixture
def client(service: StubService, bot: MakeBot, old: Release) -> Client:
    """A bot on the release `old`, revision 1."""
    service.point_at(old)
    client = bot()
    assert client.refresh().problem is None
    return client


@pytest.fixture
def stays(old: Release, candles: pl.DataFrame, release_of: ReleaseOf) -> Refuses:
    """Follows what the service says now until a problem is told, which must be of this kind and in these words."""

    def expect(client: Client, kind: type[ClientError], *words: str) -> None:
        def reasons(active: Active) -> str:
            return str(active.problem)

        with watching(client) as told:
            wait_until(lambda: any(isinstance(active.problem, kind) for active in told), f"{kind} is told")
            assert release_of(client) == old
        (said, *_) = [reasons(active) for active in told if isinstance(active.problem, kind)]
        for word in words:
            assert word in said
        decision = client.predict("BTC", candles)
        assert decision.release == old.number
        assert decision.reason.startswith("stale since ")

    return expect


def test_a_tampered_file(service: StubService, client: Client, new: Release, stays: Refuses) -> None:
    content = bytearray(new.file("ETH", "model.onnx"))
    content[100] ^= 1
    service.point_at(new)
    service.files[new.sha256("ETH", "model.onnx")] = bytes(content)
    stays(client, FileRefused, "ETH: model.onnx: its sha256 is")


def test_a_truncated_file(service: StubService, client: Client, new: Release, stays: Refuses) -> None:
    content = new.file("SOL", "weights.safetensors")
    service.point_at(new)
    service.files[new.sha256("SOL", "weights.safetensors")] = content[:-100]
    stays(client, FileRefused, f"SOL: weights.safetensors: {len(content) - 100:,} bytes came")


def test_swapped_coins(service: StubService, client: Client, new: Release, stays: Refuses) -> None:
    """Signed, digests right, every file whole: BTC's model under the name of ETH, and the other way round."""

    def swap(document: dict[str, Any]) -> None:
        models = document["models"]
        models["BTC"], models["ETH"] = models["ETH"], models["BTC"]

    service.point_at(new)
    service.edit = swap
    stays(client, SetRefused, "BTC: the bundle's coin: ETH")


def test_a_replayed_old_envelope(
    service: StubService, client: Client, old: Release, new: Release, stays: Refuses
) -> None:
    replayed = service.envelope()
    for release in (new, old):
        service.point_at(release)
        client.refresh()
    service.answers[SIGNED_PATH] = (200, {}, replayed)
    event = b"id: 1\nevent: snapshot\ndata: " + replayed + b"\n\n"
    service.answers[STREAM_PATH] = (200, {"Content-Type": "text/event-stream"}, event)
    stays(client, RevisionRefused, "revision 1", "revision 3 was seen already")


def test_a_wrong_key(service: StubService, client: Client, new: Release, stays: Refuses) -> None:
    service.signers = [CryptoSigner.generate_ed25519()]
    service.point_at(new)
    stays(client, EnvelopeRefused, "it is signed by", "and this bot trusts")


def test_a_key_that_was_retired_and_an_envelope_that_expired(
    service: StubService, bot: MakeBot, old: Release, new: Release, candles: pl.DataFrame, stays: Refuses
) -> None:
    now = [datetime(2026, 11, 22, 8, tzinfo=UTC)]
    service.issued_at = now[0]
    service.point_at(old)
    client = bot(clock=lambda: now[0])
    assert client.refresh().problem is None
    now[0] += VALID_FOR + timedelta(seconds=1)
    stays(client, SnapshotExpired, "was signed at 2026-11-22 08:00:00Z and valid until 08:03:00Z")
    assert client.predict("BTC", candles).stale_since == service.issued_at + VALID_FOR

    retired = service.signers
    service.signers = [CryptoSigner.generate_ed25519()]
    successor = bot(public_key=service.public_key, clock=lambda: now[0])
    assert "is not to be trusted" in successor.predict("BTC", candles).reason
    service.signers, service.issued_at = retired, now[0]
    service.point_at(new)
    assert isinstance(successor.refresh().problem, EnvelopeRefused)
    assert successor.predict("BTC", candles).direction == "neutral"


JUNK = random.Random(1).randbytes(200_000)
GARBAGE = {
    "binary junk": JUNK,
    "an endless line": b"data: " + b"x" * (MAX_EVENT_BYTES + 1),
    "an event without end": b"data: x\n" * (MAX_EVENT_BYTES // 7),
    "half an event": b'id: 2\nevent: snapshot\ndata: {"payload": "',
    "whole events of no meaning": b"event: snapshot\ndata: {}\n\n" * 5,
    "an answer in pictures": b"<html>\n<h1>Sign in</h1>\n</html>",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_a_garbage_stream(
    service: StubService,
    client: Client,
    old: Release,
    new: Release,
    release_of: ReleaseOf,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
) -> None:
    """What is asked for still comes, so that nothing is missed; and the log says why it does not stream."""
    service.answers[STREAM_PATH] = (200, {"Content-Type": "text/event-stream"}, body)
    with watching(client):
        wait_until(lambda: "not streaming" in caplog.text or "not a signed envelope" in caplog.text, "why")
        assert release_of(client) == old
        service.point_at(new)
        wait_until(lambda: client.active.release == new.number, "the move is heard by asking")
    assert release_of(client) == new


def test_garbage_wherever_it_is_asked(service: StubService, client: Client, stays: Refuses) -> None:
    service.answers[STREAM_PATH] = (200, {"Content-Type": "text/event-stream"}, JUNK)
    service.answers[SIGNED_PATH] = (200, {}, JUNK)
    stays(client, EnvelopeRefused, "not a signed envelope")


def test_the_service_is_away_for_an_hour(
    service: StubService,
    bot: MakeBot,
    old: Release,
    new: Release,
    candles: pl.DataFrame,
    release_of: ReleaseOf,
) -> None:
    now = [datetime(2026, 11, 22, 8, tzinfo=UTC)]
    service.issued_at = now[0]
    service.point_at(old)
    client = bot(clock=lambda: now[0])
    with watching(client):
        wait_until(lambda: client.active.release == old.number, "it follows")
        service.is_away = True
        wait_until(lambda: client.active.problem, "the absence is noticed")
        for _ in range(60):
            now[0] += timedelta(minutes=1)
            decision = client.predict("BTC", candles)
            assert (decision.release, decision.stale_since) == (old.number, service.issued_at)
        assert decision.reason.startswith("stale since 2026-11-22 08:00:00Z: ")
        assert "cannot be reached" in decision.reason
        restarted = bot(clock=lambda: now[0])
        assert release_of(restarted) == old
        assert restarted.predict("BTC", candles).stale_since == service.issued_at
        service.issued_at = now[0]
        service.point_at(new)
        service.is_away = False
        wait_until(lambda: client.active.release == new.number, "it follows again")
    decision = client.predict("BTC", candles)
    assert (decision.stale_since, decision.reason) == (None, "")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: the operating system itself refuses every write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(
    service: StubService, client: Client, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(new)
    with full_disk():
        problem = client.refresh().problem
        assert release_of(client) == old
    assert isinstance(problem, CacheFailed)
    assert os.strerror(errno.EFBIG) in str(problem)
    assert client.refresh().problem is None
    assert release_of(client) == new


def test_a_full_disk_holds_up_no_move_to_a_release_that_was_fetched_ahead(
    service: StubService, client: Client, new: Release, cache_dir: Path, release_of: ReleaseOf, bot: MakeBot
) -> None:
    service.announce(new)
    client.refresh()
    service.point_at(new)
    with full_disk():
        problem = client.refresh().problem
    assert release_of(client) == new
    assert "revision 2 is in use but not saved for a restart" in str(problem)
    assert client.refresh().problem is None
    service.stop()
    assert release_of(bot()) == new


def test_a_file_system_without_room(
    service: StubService, bot: MakeBot, old: Release, new: Release, cache_dir: Path, release_of: ReleaseOf
) -> None:
    """A bundle that does not fit, and then not even a revision: the bot keeps its set, and follows once there is room."""
    with small_disk(cache_dir, megabytes=16) as disk:
        service.point_at(old)
        client = bot()
        assert client.refresh().problem is None
        service.point_at(new)
        disk.fill()
        problem = client.refresh().problem
        assert isinstance(problem, CacheFailed)
        assert os.strerror(errno.ENOSPC) in str(problem)
        assert release_of(client) == release_of(bot()) == old
        disk.make_room()
        assert client.refresh().problem is None
        service.stop()
        assert release_of(client) == release_of(bot()) == new
        sound(cache_dir)


def sound(cache_dir: Path) -> None:
    """Every bundle under its final name is whole."""
    for folder in (cache_dir / "bundles").iterdir():
        manifest = json.loads((folder / "manifest.json").read_bytes())
        for name, entry in manifest["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.long
def test_the_cache_is_killed_in_mid_write(
    service: StubService, bot: MakeBot, releases: list[Release], cache_dir: Path, release_of: ReleaseOf
) -> None:
    """A real process, SIGKILL at many points while it downloads, notes, fetches ahead and deletes."""
    moments = random.Random(11)
    command = [sys.executable, "-c", FOLLOW, service.url, TOKEN, service.public_key, str(cache_dir)]
    service.point_at(releases[0])
    bot().refresh()
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline()
            for _ in range(moments.randrange(1, 6)):
                service.point_at(releases[service.revision % 3])
                service.announce(releases[(service.revision + 1) % 3])
                time.sleep(moments.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
        service.is_away = True
        sound(cache_dir)
        assert release_of(bot()) in releases
        service.is_away = False
    client = bot()
    assert client.refresh().problem is None
    assert client.active.revision == service.revision
    assert list((cache_dir / "unfinished").iterdir()) == []
