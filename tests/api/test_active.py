"""What a bot fetches: the snapshot, and the bytes it names."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from asgiref.sync import async_to_sync
from django.core.files.storage import default_storage
from django.test import AsyncClient

from accounts.models import User
from crpbot_runtime.protocol import snapshot as client_side
from crpbot_runtime.protocol.envelope import verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from deploy.bots import key_decisions
from deploy.releases import decide
from deploy.serving import keys, snapshot
from tests import factories, scenarios
from tests.api.callers import Caller, assert_problem
from training import artifact_store
from training.models import Artifact

pytestmark = pytest.mark.django_db


def an_artifact() -> Artifact:
    scenarios.awaiting_approval()
    return Artifact.objects.get(name="model.onnx", bundle__coin__symbol="ETH")


def stored(artifact: Artifact) -> Path:
    return Path(default_storage.path(artifact_store.key(artifact.sha256)))


def test_before_the_first_pointer_a_bot_is_told_to_ask_later(bot: Caller) -> None:
    response = bot.get("active/")
    assert_problem(response, 503, "no pointer yet")
    assert int(response["Retry-After"]) > 0


def test_the_snapshot_is_the_very_bytes_the_edge_serves(bot: Caller) -> None:
    scenarios.service_in_use()
    response, edge = bot.get("active/"), snapshot.build_current()
    assert (response.bytes, response["ETag"]) == (edge.body, edge.etag)
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["ETag"] == f'"{hashlib.sha256(response.bytes).hexdigest()}"'


def test_the_clients_own_reader_takes_it(bot: Caller) -> None:
    scenarios.service_in_use()
    _, read = client_side.parse_snapshot(bot.get("active/").bytes)
    assert (read.revision, read.line, sorted(read.models)) == (1, "v6_enhanced", ["BTC", "ETH", "SOL"])


def test_the_signed_one_is_the_same_with_the_same_headers(bot: Caller) -> None:
    scenarios.service_in_use()
    response = bot.get("active/signed/")
    signed = verify_envelope(response.bytes, PublicKeys(keys.export_public()))
    assert signed.snapshot == client_side.parse_snapshot(bot.get("active/").bytes)[1]
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["ETag"] == f'"{hashlib.sha256(response.bytes).hexdigest()}"'


def test_the_public_halves_of_the_keys_are_listed_and_nothing_else_of_them(as_approver: Caller) -> None:
    made = key_decisions.create_key(actor=scenarios.APPROVER, reason="the tests")
    (row,) = as_approver.get("keys/?state=next").json()["results"]
    assert (row["key_id"], row["public"]) == (made.key_id, made.public_hex)
    assert sorted(row) == [
        "activated_at", "bots", "created_at", "created_by", "cut_off", "key_id", "public", "retired_at",
        "retirement_proposed_by", "retirement_reason", "state", "trusted_by",
    ]  # fmt: skip


def test_a_current_bot_gets_a_304_until_the_pointer_moves(bot: Caller) -> None:
    move = scenarios.service_in_use()
    etag = bot.get("active/")["ETag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}'):
        unchanged = bot.get("active/", headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.bytes, unchanged["ETag"]) == (304, b"", etag)
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=scenarios.APPROVER, reason="passed", revision=move.revision)
    moved = bot.get("active/", headers={"If-None-Match": etag})
    assert (moved.status_code, json.loads(moved.bytes)["revision"]) == (200, 2)


def test_a_file_named_by_the_snapshot_comes_as_the_bytes_it_is_named_by(bot: Caller) -> None:
    scenarios.service_in_use()
    for model in bot.get("active/").json()["models"].values():
        for file in model["files"].values():
            response = bot.get(file["url"])
            assert hashlib.sha256(response.bytes).hexdigest() == file["sha256"]
            assert len(response.bytes) == file["size"] == int(response["Content-Length"])
            assert response["Cache-Control"] == "private, max-age=31536000, immutable"


def a_big_artifact() -> Artifact:
    return Artifact.objects.create(
        bundle=an_artifact().bundle,
        name="weights.safetensors",
        sha256=artifact_store.store(b"w" * 300_000),
        size=300_000,
    )


def test_a_large_file_comes_whole_and_in_pieces(bot: Caller) -> None:
    big = a_big_artifact()
    response: Any = bot.http.get(
        f"/api/v1/artifacts/{big.sha256}", headers={"Authorization": f"Bearer {bot.token}"}
    )
    pieces = list(response.streaming_content)
    assert len(pieces) > 1
    assert b"".join(pieces) == b"w" * 300_000


def test_the_same_under_asgi_without_holding_up_the_event_loop() -> None:
    artifact = an_artifact()
    token = factories.token(factories.person("trader"), "bot")

    async def fetch() -> tuple[bool, bytes]:
        response: Any = await AsyncClient().get(
            f"/api/v1/artifacts/{artifact.sha256}", headers={"Authorization": f"Bearer {token}"}
        )
        return response.is_async, b"".join([piece async for piece in response.streaming_content])

    is_async, content = async_to_sync(fetch)()
    assert is_async
    assert hashlib.sha256(content).hexdigest() == artifact.sha256


def test_bytes_never_change_so_asking_again_with_their_etag_is_a_304(bot: Caller) -> None:
    artifact = an_artifact()
    path = f"artifacts/{artifact.sha256}"
    etag = bot.get(path)["ETag"]
    again = bot.get(path, headers={"If-None-Match": etag})
    assert (etag, again.status_code, again.bytes) == (f'"{artifact.sha256}"', 304, b"")


def test_a_stored_file_that_is_no_bundles_is_not_served(bot: Caller) -> None:
    scenarios.awaiting_approval()
    sha256 = artifact_store.store(b"a dataset, or whatever else is kept under its hash")
    assert_problem(bot.get(f"artifacts/{sha256}"), 404, "No bundle has a file of this sha256")


@pytest.mark.parametrize(
    "name", ["0" * 64, "abc", "A" * 64, "%00" * 64, "é" * 64, "..%2f..%2fgate.sqlite3"], ids=repr
)
def test_a_name_that_is_no_artifacts_is_not_found(name: str, bot: Caller) -> None:
    assert_problem(bot.get(f"artifacts/{name}"), 404)


def test_a_truncated_file_is_not_sent(bot: Caller) -> None:
    artifact = an_artifact()
    stored(artifact).write_bytes(b"half")
    assert_problem(bot.get(f"artifacts/{artifact.sha256}"), 503, "is damaged", "Restore it")


def test_a_changed_file_of_the_same_length_is_not_sent(bot: Caller) -> None:
    artifact = an_artifact()
    content = bytearray(stored(artifact).read_bytes())
    content[len(content) // 2] ^= 1
    stored(artifact).write_bytes(content)
    assert_problem(bot.get(f"artifacts/{artifact.sha256}"), 503, "is damaged", "Restore it")


@pytest.mark.parametrize("edit", [lambda file: file.truncate(100_000), lambda file: file.write(b"x")])
def test_a_file_that_changes_while_it_is_sent(edit: Callable[[BinaryIO], object], bot: Caller) -> None:
    big = a_big_artifact()
    response: Any = bot.http.get(
        f"/api/v1/artifacts/{big.sha256}", headers={"Authorization": f"Bearer {bot.token}"}
    )
    pieces = response.streaming_content
    sent = next(pieces)
    with stored(big).open("r+b") as file:
        file.seek(200_000)
        edit(file)
    with pytest.raises(artifact_store.FileLost, match="damaged"):
        for piece in pieces:
            sent += piece
    assert len(sent) < int(response["Content-Length"])


def test_a_lost_file_is_said_to_be_lost(bot: Caller) -> None:
    artifact = an_artifact()
    stored(artifact).unlink()
    assert_problem(bot.get(f"artifacts/{artifact.sha256}"), 503, "missing from the store")


def test_a_person_may_look_at_what_the_bots_see(as_viewer: Caller, viewer: User) -> None:
    scenarios.service_in_use()
    assert as_viewer.get("active/").json()["moved_by"] == "anna"
