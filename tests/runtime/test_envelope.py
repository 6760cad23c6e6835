"""What is followed was signed by a key the bot was given by hand, lately, and never before another revision."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from crpbot_runtime import Client, EnvelopeRefused, Misconfigured, SnapshotExpired
from crpbot_runtime.errors import RevisionRefused
from crpbot_runtime.protocol.envelope import MAX_ENVELOPE_BYTES, verify_envelope
from crpbot_runtime.protocol.public_keys import PublicKeys
from tests.runtime.conftest import MakeBot, ReleaseOf
from tests.runtime.stub_service import SIGNED_PATH, VALID_FOR, Release, StubService

Tamper = Callable[[dict[str, Any]], None]


@pytest.fixture
def client(service: StubService, bot: MakeBot, old: Release) -> Client:
    """A client that follows the release `old` since revision 1."""
    service.point_at(old)
    client = bot()
    assert client.refresh().problem is None
    return client


def public(*signers: CryptoSigner) -> str:
    return ",".join(signer.public_key.keyval["public"] for signer in signers)


def says_another_release(sent: dict[str, Any]) -> None:
    payload = base64.b64decode(sent["payload"])
    sent["payload"] = base64.b64encode(payload.replace(b'"revision": 2', b'"revision": 3')).decode()


def has_another_signature(sent: dict[str, Any]) -> None:
    sent["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()


def has_a_short_signature(sent: dict[str, Any]) -> None:
    sent["signatures"][0]["sig"] = "AAAA"


def is_signed_by_nobody(sent: dict[str, Any]) -> None:
    sent["signatures"] = []


def names_a_trusted_key_falsely(sent: dict[str, Any]) -> None:
    forged = Envelope(base64.b64decode(sent["payload"]), sent["payloadType"], {})
    signature = forged.sign(CryptoSigner.generate_ed25519())
    sent["signatures"][0]["sig"] = base64.b64encode(bytes.fromhex(signature.signature)).decode()


def is_of_another_type(sent: dict[str, Any]) -> None:
    sent["payloadType"] = "application/vnd.in-toto+json"


def has_no_payload(sent: dict[str, Any]) -> None:
    del sent["payload"]


def has_a_payload_that_is_a_list(sent: dict[str, Any]) -> None:
    sent["payload"] = [1]


def names_a_key_twice(sent: dict[str, Any]) -> None:
    sent["signatures"] *= 2


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (says_another_release, "its signature is invalid"),
        (has_another_signature, "its signature is invalid"),
        (has_a_short_signature, "its signature is invalid"),
        (names_a_trusted_key_falsely, "its signature is invalid"),
        (is_signed_by_nobody, "signed by nobody"),
        (is_of_another_type, "not a snapshot"),
        (has_no_payload, "not a signed envelope"),
        (has_a_payload_that_is_a_list, "not a signed envelope"),
        (names_a_key_twice, "not a signed envelope"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_envelope_that_was_tampered_with_is_refused_and_the_set_stays(
    service: StubService,
    client: Client,
    old: Release,
    new: Release,
    release_of: ReleaseOf,
    tamper: Tamper,
    words: str,
) -> None:
    service.point_at(new)
    service.tamper = tamper
    problem = client.refresh().problem
    assert isinstance(problem, EnvelopeRefused)
    assert words in str(problem)
    assert release_of(client) == old
    service.tamper = lambda sent: None
    assert client.refresh().problem is None
    assert release_of(client) == new


def test_the_plain_snapshot_is_not_followed(service: StubService, client: Client, new: Release) -> None:
    service.point_at(new)
    service.answers[SIGNED_PATH] = (200, {}, json.dumps(service.document()).encode())
    assert isinstance(client.refresh().problem, EnvelopeRefused)


def test_another_key_is_another_service(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    client = bot(public_key=public(CryptoSigner.generate_ed25519()))
    problem = client.refresh().problem
    assert isinstance(problem, EnvelopeRefused)
    assert "and this bot trusts" in str(problem)
    assert service.downloads() == []
    assert client.predict("BTC", candles).direction == "neutral"


def test_an_old_envelope_that_is_replayed_takes_nobody_back(
    service: StubService, client: Client, new: Release, release_of: ReleaseOf
) -> None:
    kept = service.envelope()
    service.point_at(new)
    client.refresh()
    service.answers[SIGNED_PATH] = (200, {}, kept)
    assert isinstance(client.refresh().problem, RevisionRefused)
    assert release_of(client) == new


def test_a_repeated_expired_answer_makes_a_bot_stale_and_stops_nothing(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    """Something on the way answers 304 for ever, or the same bytes: neither is the service's word any more."""
    now = [service.issued_at]
    service.point_at(old)
    client = bot(clock=lambda: now[0])
    client.refresh()
    now[0] = service.issued_at + VALID_FOR
    assert client.refresh().problem is None
    now[0] += timedelta(seconds=1)
    active = client.refresh()
    assert isinstance(active.problem, SnapshotExpired)
    assert active.stale_since == service.issued_at + VALID_FOR
    decision = client.predict("BTC", candles)
    assert (decision.release, decision.stale_since) == (old.number, service.issued_at + VALID_FOR)
    assert "was signed at" in decision.reason
    service.issued_at = now[0]
    assert client.refresh().stale_since is None


def test_a_bot_without_a_set_waits_for_a_fresh_snapshot(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame, release_of: ReleaseOf
) -> None:
    service.issued_at -= timedelta(hours=1)
    service.point_at(old)
    client = bot()
    assert isinstance(client.refresh().problem, SnapshotExpired)
    decision = client.predict("BTC", candles)
    assert (decision.direction, decision.line) == ("neutral", None)
    assert "was signed at" in decision.reason
    service.issued_at += timedelta(hours=1)
    assert client.refresh().problem is None
    assert release_of(client) == old


def test_a_bot_may_be_told_to_start_with_an_expired_snapshot(
    service: StubService, bot: MakeBot, old: Release, release_of: ReleaseOf
) -> None:
    service.issued_at -= timedelta(hours=1)
    service.point_at(old)
    client = bot(start_stale=True)
    active = client.refresh()
    assert isinstance(active.problem, SnapshotExpired)
    assert active.stale_since == service.issued_at + VALID_FOR
    assert release_of(client) == old


def test_an_expired_snapshot_changes_nothing_however_new_its_revision(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    now = [service.issued_at]
    client = bot(start_stale=True, clock=lambda: now[0])
    service.point_at(old)
    assert client.refresh().problem is None
    service.point_at(new)
    now[0] += VALID_FOR + timedelta(seconds=1)
    assert isinstance(client.refresh().problem, SnapshotExpired)
    assert release_of(client) == old
    service.issued_at = now[0]
    assert client.refresh().problem is None
    assert release_of(client) == new


def test_the_same_release_signed_again_is_not_loaded_again(service: StubService, client: Client) -> None:
    before, downloads = client._updater._state.predictors, len(service.downloads())
    service.issued_at += timedelta(minutes=1)
    assert client.refresh().problem is None
    assert client._updater._state.predictors is before
    assert len(service.downloads()) == downloads


def test_while_the_service_changes_its_key_bots_of_either_key_follow(
    service: StubService, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
) -> None:
    first, second = service.signers[0], CryptoSigner.generate_ed25519()
    early = bot(public_key=public(first, second))
    late = bot(public_key=public(first))
    service.signers = [first, second]
    service.point_at(old)
    assert [one.refresh().problem for one in (early, late)] == [None, None]
    service.signers = [second]
    service.point_at(new)
    assert early.refresh().problem is None
    assert release_of(early) == new
    assert isinstance(late.refresh().problem, EnvelopeRefused)
    assert release_of(late) == old


def test_a_set_on_disk_that_only_a_retired_key_signed_is_not_begun_with(
    service: StubService, bot: MakeBot, old: Release, candles: pl.DataFrame
) -> None:
    service.point_at(old)
    bot().refresh()
    decision = bot(public_key=public(CryptoSigner.generate_ed25519())).predict("BTC", candles)
    assert decision.direction == "neutral"
    assert "not to be trusted" in decision.reason


def test_what_awaits_approval_is_announced(service: StubService, old: Release) -> None:
    service.point_at(old)
    models = service.document()["models"]
    following = {
        "release": 9,
        "line": "v7_fixed",
        "interval_seconds": 3600,
        "simulated": True,
        "models": models,
    }
    service.edit = lambda document: document.update(next=following)
    announced = verify_envelope(service.envelope(), PublicKeys(service.public_key)).next
    assert announced is not None
    assert (announced.release, sorted(announced.models)) == (9, ["BTC", "ETH", "SOL"])


def test_an_announcement_that_cannot_be_read_keeps_nobody_from_the_pointer(
    service: StubService, bot: MakeBot, old: Release, caplog: pytest.LogCaptureFixture
) -> None:
    service.point_at(old)
    service.edit = lambda document: document.update(next={"release": "nine"})
    assert bot().refresh().problem is None
    assert "cannot be prefetched" in caplog.text


@pytest.mark.parametrize(
    "key", ["", " , ", "ab", "zz" * 32, "ab" * 31, "-----BEGIN PUBLIC KEY-----"], ids=repr
)
def test_a_key_that_is_none_is_refused_at_once(bot: MakeBot, key: str) -> None:
    with pytest.raises(Misconfigured, match="public key"):
        bot(public_key=key)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'{"payload": 1}', b"\xff", b"[" * 100_000, b"x" * (MAX_ENVELOPE_BYTES + 1)],
    ids=["nothing", "null", "a list", "numbers", "no text", "nested", "too long"],
)
def test_garbage_is_no_envelope(service: StubService, body: bytes) -> None:
    with pytest.raises(EnvelopeRefused):
        verify_envelope(body, PublicKeys(service.public_key))


def test_times_of_the_signature_are_read_with_their_zone(service: StubService, old: Release) -> None:
    service.issued_at = datetime(2026, 11, 22, 8, tzinfo=UTC)
    service.point_at(old)
    signed = verify_envelope(service.envelope(), PublicKeys(service.public_key))
    assert (signed.issued_at, signed.expires_at) == (service.issued_at, service.issued_at + VALID_FOR)
