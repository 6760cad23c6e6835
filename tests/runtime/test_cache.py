"""The last good set on disk: a bot starts from it when the service is away, whatever happened while it was written."""

import base64
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
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crpbot_runtime import CacheFailed
from crpbot_runtime.errors import RevisionRefused
from crpbot_runtime.storage import disk, saved_state
from tests.runtime.conftest import MakeBot, ReleaseOf
from tests.runtime.stub_service import HALF, SIGNED_PATH, TOKEN, Release, StubService

pytestmark = pytest.mark.slow

FOLLOW_FOR_EVER = """
import sys
from crpbot_runtime import Client

client = Client(*sys.argv[1:], timeout_s=20)
while True:
    print(client.refresh().revision, flush=True)
"""


@contextmanager
def following(service: StubService, cache_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A bot in a process of its own that asks without pause, and is killed with SIGKILL at the end."""
    command = [sys.executable, "-c", FOLLOW_FOR_EVER, service.url, TOKEN, service.public_key, str(cache_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.send_signal(signal.SIGKILL)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: the operating system itself refuses every write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bundles(cache_dir: Path) -> set[str]:
    return {path.name for path in (cache_dir / "bundles").iterdir()}


def digests(service: StubService) -> set[str]:
    return {model["bundle"].removeprefix("sha256:") for model in service.document()["models"].values()}


def test_a_bot_starts_from_its_last_good_set_when_nothing_listens(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    bot().refresh()
    service.stop()
    client = bot()
    assert release_of(client) == old
    assert client.predict("BTC", candles).reason.startswith("stale since "), "it may have been overtaken"
    assert "cannot be reached" in str(client.refresh().problem)
    assert release_of(client) == old
    decision = client.predict("BTC", candles)
    assert decision.stale_since is not None
    assert decision.reason.startswith("stale since ")


def test_an_offline_pointer_stays_offline_over_a_restart(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    for release in (old, None):
        service.point_at(release)
        bot().refresh()
    service.stop()
    assert bot().predict("BTC", candles).direction == "neutral"


def test_a_set_on_disk_without_a_coin_the_bot_trades_is_not_begun_with(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    bot().refresh()
    decision = bot(coins=["BTC", "DOGE"]).predict("BTC", candles)
    assert decision.direction == "neutral"
    assert "lacks DOGE" in decision.reason


def test_without_cache_and_service_the_answer_is_neutral(
    service: StubService, bot: MakeBot, candles: pl.DataFrame
) -> None:
    service.stop()
    client = bot()
    client.refresh()
    decision = client.predict("BTC", candles)
    assert decision.direction == "neutral"
    assert decision.reason.startswith("no model: ")
    assert "cannot be reached" in decision.reason


def test_a_restarted_bot_asks_only_whether_something_changed(
    service: StubService, bot: MakeBot, old: Release
) -> None:
    service.point_at(old)
    bot().refresh()
    before = len(service.requests)
    active = bot().refresh()
    assert (active.problem, active.stale_since) == (None, None)
    assert [request.path for request in service.requests[before:]] == [SIGNED_PATH]


def test_the_same_document_again_is_not_loaded_and_written_again(
    service: StubService, bot: MakeBot, old: Release, cache_dir: Path
) -> None:
    """A proxy may drop the ETag; every poll then brings the whole document."""
    service.point_at(old)
    service.answers[SIGNED_PATH] = (200, {}, service.envelope())
    client = bot()
    client.refresh()
    pointer = next(cache_dir.glob("pointers/*.json"))
    written_at = pointer.stat().st_mtime_ns
    assert client.refresh().problem is None
    assert pointer.stat().st_mtime_ns == written_at


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.onnx", flip_a_bit),
        ("weights.safetensors", cut_short),
        ("scaler.json", delete),
        ("manifest.json", flip_a_bit),
        ("manifest.json", delete),
    ],
)
def test_a_damaged_bundle_is_not_run_and_downloaded_again(
    service: StubService,
    bot: MakeBot,
    old: Release,
    candles: pl.DataFrame,
    cache_dir: Path,
    name: str,
    damage: Callable[[Path], None],
    release_of: ReleaseOf,
) -> None:
    service.point_at(old)
    bot().refresh()
    damage(next((cache_dir / "bundles").glob(f"*/{name}")))
    client = bot()
    decision = client.predict("BTC", candles)
    assert decision.direction == "neutral"
    assert "the set on disk cannot be used" in decision.reason
    assert client.refresh().problem is None
    assert release_of(client) == old
    assert release_of(bot()) == old


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("pointers/*.json", flip_a_bit),
        ("pointers/*.json", cut_short),
        ("revisions.json", cut_short),
        ("revisions.json", delete),
    ],
)
def test_a_damaged_note_is_mended_by_the_next_refresh(
    service: StubService,
    bot: MakeBot,
    old: Release,
    cache_dir: Path,
    name: str,
    damage: Callable[[Path], None],
    release_of: ReleaseOf,
) -> None:
    service.point_at(old)
    bot().refresh()
    damage(next(cache_dir.glob(name)))
    client = bot()
    assert client.refresh().problem is None
    assert release_of(client) == old
    service.stop()
    assert release_of(bot()) == old


def edited(pointer: Path, *, is_careful: bool) -> None:
    """Say another release in the kept envelope; carefully, with the checksum that stands beside it."""
    document = json.loads(pointer.read_text())
    envelope = json.loads(document["current"]["body"])
    payload = base64.b64decode(envelope["payload"]).replace(b'"release": 1', b'"release": 2')
    envelope["payload"] = base64.b64encode(payload).decode()
    body = json.dumps(envelope)
    document["current"]["body"] = body
    if is_careful:
        document["current"]["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    pointer.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("is_careful", "words"), [(False, "sha256 differs"), (True, "its signature is invalid")]
)
def test_a_pointer_on_disk_that_was_edited_is_not_followed(
    service: StubService,
    bot: MakeBot,
    old: Release,
    candles: pl.DataFrame,
    cache_dir: Path,
    is_careful: bool,
    words: str,
) -> None:
    service.point_at(old)
    bot().refresh()
    edited(next(cache_dir.glob("pointers/*.json")), is_careful=is_careful)
    decision = bot().predict("BTC", candles)
    assert decision.direction == "neutral"
    assert words in decision.reason


def test_a_lost_file_of_revisions_opens_no_door_to_old_ones(
    service: StubService, bot: MakeBot, old: Release, new: Release, cache_dir: Path
) -> None:
    service.point_at(old, revision=5)
    bot().refresh()
    (cache_dir / "revisions.json").unlink()
    service.point_at(new, revision=4)
    assert isinstance(bot().refresh().problem, RevisionRefused)


def test_a_move_does_not_wait_for_a_file_that_this_bot_wrote_itself(
    service: StubService, bot: MakeBot, old: Release, new: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.point_at(old, revision=5)
    client = bot()
    client.refresh()
    read, names = disk.read_json, list[str]()

    def read_and_note(path: Path) -> dict[str, Any] | None:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(saved_state, "read_json", read_and_note)
    service.point_at(new, revision=6)
    assert client.refresh().problem is None
    assert "revisions.json" not in names


def test_the_current_and_the_previous_release_are_kept_and_older_ones_go(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release, cache_dir: Path
) -> None:
    client = bot()
    names = []
    for release in (old, new, newer):
        service.point_at(release)
        client.refresh()
        names.append(digests(service))
    assert bundles(cache_dir) == names[1] | names[2]
    assert list((cache_dir / "unfinished").iterdir()) == []


def test_a_move_to_the_same_release_keeps_the_previous_one(
    service: StubService, bot: MakeBot, old: Release, new: Release, cache_dir: Path
) -> None:
    client = bot()
    for release in (old, new):
        service.point_at(release)
        client.refresh()
    service.edit = lambda document: document.update(reason="said better")
    assert client.refresh().reason == "said better"
    assert len(bundles(cache_dir)) == 6


def test_refused_releases_do_not_pile_up(
    service: StubService, bot: MakeBot, old: Release, new: Release, newer: Release, cache_dir: Path
) -> None:
    client = bot()
    service.point_at(old)
    client.refresh()
    for release in (new, newer):
        service.point_at(release)
        service.files[release.sha256("SOL", "model.onnx")] = b"bad"
        assert client.refresh().problem is not None
    assert len(bundles(cache_dir)) == 3 + 2  # all of the old one, and what was sound of the last attempt
    assert list((cache_dir / "unfinished").iterdir()) == []


def test_two_services_share_a_folder_and_not_their_sets(
    service: StubService,
    other_service: StubService,
    bot: MakeBot,
    old: Release,
    new: Release,
    release_of: ReleaseOf,
) -> None:
    service.point_at(old)
    other_service.point_at(new)
    bot().refresh()
    bot(url=other_service.url, public_key=other_service.public_key).refresh()
    service.stop()
    other_service.stop()
    assert release_of(bot()) == old
    assert release_of(bot(url=other_service.url, public_key=other_service.public_key)) == new


def test_two_bots_share_a_folder(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    first, second = bot(), bot()
    service.point_at(old)
    assert first.refresh().problem is None
    downloads = len(service.downloads())
    assert second.refresh().problem is None
    assert len(service.downloads()) == downloads
    service.point_at(new)
    first.refresh()
    assert (release_of(first), release_of(second)) == (new, old)


def test_a_bot_killed_in_the_middle_of_a_file_starts_from_the_set_before(
    service: StubService, bot: MakeBot, old: Release, new: Release, cache_dir: Path, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    bot().refresh()
    service.point_at(new)
    sha256 = new.sha256("ETH", "model.onnx")
    service.files[sha256] = HALF
    service.edit = lambda document: document["models"]["ETH"]["files"]["model.onnx"].update(size=100_000)
    with following(service, cache_dir):
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in (cache_dir / "unfinished").glob("*/model.onnx")):
            assert time.monotonic() < deadline, "the child never began to write the file"
            time.sleep(0.01)
    service.is_away = True
    assert release_of(bot()) == old
    service.is_away = False
    service.edit = lambda document: None
    service.files[sha256] = new.file("ETH", "model.onnx")
    service.revision += 1
    client = bot()
    assert client.refresh().problem is None
    assert release_of(client) == new
    assert list((cache_dir / "unfinished").iterdir()) == []


def test_a_bot_killed_at_any_moment_starts_from_one_whole_release(
    service: StubService,
    bot: MakeBot,
    old: Release,
    new: Release,
    newer: Release,
    cache_dir: Path,
    release_of: ReleaseOf,
) -> None:
    """Each answer names another of three releases, so that the child downloads, writes and deletes all the time."""
    rotation = [old, new, newer]
    service.before_snapshot = lambda: service.point_at(rotation[service.revision % 3])
    moments = random.Random(7)
    for _ in range(4):
        service.is_away = False
        with following(service, cache_dir) as child:
            assert child.stdout is not None
            for _ in range(3):
                assert child.stdout.readline()
            time.sleep(moments.uniform(0, 0.1))
        service.is_away = True
        assert release_of(bot()) in rotation


def test_a_full_disk_keeps_the_set_in_use_and_says_why(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    service.point_at(old)
    client = bot()
    client.refresh()
    service.point_at(new)
    with full_disk():
        problem = client.refresh().problem
    assert isinstance(problem, CacheFailed)
    assert os.strerror(errno.EFBIG) in str(problem)
    assert release_of(client) == old
    assert client.refresh().problem is None
    assert release_of(client) == new


def test_a_full_disk_holds_no_bot_on_a_model_that_the_pointer_has_left(
    service: StubService, bot: MakeBot, old: Release, new: Release, candles: pl.DataFrame
) -> None:
    client = bot()
    for release in (new, old):
        service.point_at(release)
        client.refresh()
    for move, number in ((new, new.number), (None, None)):
        service.point_at(move)
        with full_disk():
            active = client.refresh()
        assert active.release == number
        assert active.stale_since is None
        assert "not saved for a restart" in str(active.problem)
    assert client.predict("BTC", candles).direction == "neutral"
    assert client.refresh().problem is None
    service.stop()
    assert bot().active.revision == client.active.revision


def test_a_folder_that_cannot_be_made_is_told_at_once(bot: MakeBot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheFailed, match="file"):
        bot(cache_dir=tmp_path / "file" / "cache")


def test_a_folder_another_client_is_writing_to_is_waited_for_and_then_told(
    service: StubService, bot: MakeBot, new: Release, cache_dir: Path
) -> None:
    service.point_at(new)
    service.files[new.sha256("BTC", "model.onnx")] = HALF
    with following(service, cache_dir):
        deadline = time.monotonic() + 20
        while not service.downloads():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "written by another client" in str(bot(timeout_s=0.1).refresh().problem)


def test_the_highest_audit_head_is_reported_after_a_restart(
    service: StubService, bot: MakeBot, old: Release, new: Release
) -> None:
    def sign_with_head(seq: int, digest: str) -> None:
        service.edit = lambda document: document.update(audit_head={"seq": seq, "hash": digest})

    service.point_at(old)
    sign_with_head(128, "9a")
    bot().refresh()
    service.point_at(new)
    for seq, digest in ((90, "90"), (128, "ff")):
        sign_with_head(seq, digest)
        client = bot()
        client.refresh()
        assert client._updater.build_heartbeat("desk-1")["audit_head"] == {"seq": 128, "hash": "9a"}
    sign_with_head(129, "ff")
    client.refresh()
    assert client._updater.build_heartbeat("desk-1")["audit_head"] == {"seq": 129, "hash": "ff"}
