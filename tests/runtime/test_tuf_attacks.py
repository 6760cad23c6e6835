"""The attacks that The Update Framework names, each carried out on a bot by a service that attacks.

The names are those of https://theupdateframework.io/docs/security and of python-tuf's tests. After every attack the bot
decides with what it had, and follows again once it reaches the honest service.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crpbot_runtime import Client
from crpbot_runtime.errors import (
    ClientError,
    EnvelopeRefused,
    FileRefused,
    KeysRefused,
    RevisionRefused,
    ServiceUnavailable,
    SetRefused,
    SignerUnknown,
    SnapshotExpired,
    SnapshotRefused,
)
from crpbot_runtime.protocol.public_keys import PublicKeys
from crpbot_runtime.protocol.service import KEYS_PATH
from tests.runtime.conftest import MakeBot, ReleaseOf, wait_until, watching
from tests.runtime.repository_simulator import HIGHEST, RepositorySimulator, create_key, get_public
from tests.runtime.stub_service import (
    HEARTBEAT_PATH,
    SIGNED_PATH,
    STREAM_PATH,
    VALID_FOR,
    Release,
    StubService,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n"

Refuses = Callable[..., None]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[RepositorySimulator]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    service = RepositorySimulator()
    yield service
    service.stop()


@pytest.fixture
def client(service: RepositorySimulator, bot: MakeBot, old: Release) -> Client:
    """A bot on the release `old`, revision 1, which was given the key of the first set."""
    service.point_at(old)
    client = bot(public_key=service.exported)
    assert client.refresh().problem is None
    return client


@pytest.fixture
def withstands(
    service: RepositorySimulator, old: Release, new: Release, release_of: ReleaseOf, candles: pl.DataFrame
) -> Refuses:
    """Expects a bot to refuse what is served now, to stay on `old`, and to follow `new` once the attack is over."""

    def expect(client: Client, kind: type[ClientError], *words: str) -> None:
        problem = client.refresh().problem
        assert isinstance(problem, kind), problem
        for word in words:
            assert word in str(problem)
        assert release_of(client) == old
        assert client.predict("BTC", candles).reason.startswith("stale since")
        service.stop_attacking()
        service.edit = lambda document: None
        service.tamper = lambda envelope: None
        service.point_at(new)
        assert client.refresh().problem is None
        assert release_of(client) == new

    return expect


class TestArbitrarySoftwareInstallation:
    """An attacker installs anything they want."""

    def test_a_snapshot_of_the_attackers_own(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        service.forge(newer, 2, create_key())
        withstands(client, SignerUnknown, "it is signed by")

    def test_a_changed_payload_under_the_genuine_signature(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        service.point_at(newer)

        def name_another_key(envelope: dict[str, Any]) -> None:
            envelope["signatures"][0]["sig"] = service.key_sets[0]["signatures"][0]["sig"]

        service.tamper = name_another_key
        withstands(client, EnvelopeRefused, "its signature is invalid")

    def test_a_changed_file_of_the_same_length(
        self, service: RepositorySimulator, client: Client, new: Release, withstands: Refuses
    ) -> None:
        sha256, content = new.sha256("ETH", "model.onnx"), bytearray(new.file("ETH", "model.onnx"))
        service.point_at(new)
        content[100] ^= 1
        service.files[sha256] = bytes(content)
        problem = client.refresh().problem
        assert isinstance(problem, FileRefused)
        service.files[sha256] = new.file("ETH", "model.onnx")
        assert client.refresh().problem is None

    def test_a_set_of_keys_of_the_attackers_own(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        thief, genuine = create_key(), list(service.key_sets)
        service.publish_keys(thief, by=[thief])
        service.forge(newer, 2, thief)
        withstands_keys(service, client, "set 2 is signed by no key of set 1")
        service.key_sets = genuine
        withstands(client, SignerUnknown)


class TestRollback:
    """An attacker presents older files than those that the client has seen."""

    def test_an_older_snapshot(
        self, service: RepositorySimulator, client: Client, new: Release, release_of: ReleaseOf
    ) -> None:
        older = service.envelope()
        service.point_at(new)
        assert client.refresh().problem is None
        service.answers[SIGNED_PATH] = (200, {}, older)
        problem = client.refresh().problem
        assert isinstance(problem, RevisionRefused)
        assert "revision 2 was seen already" in str(problem)
        assert release_of(client) == new

    def test_an_older_set_of_keys(
        self, service: RepositorySimulator, client: Client, bot: MakeBot, new: Release, release_of: ReleaseOf
    ) -> None:
        """The retired key is not trusted again, neither at once nor after a restart."""
        (retired,), first = service.trusted, list(service.key_sets)
        service.replace_key()
        service.point_at(new)
        assert client.refresh().problem is None
        service.key_sets = first
        for one in (client, bot(public_key=service.exported)):
            service.forge(new, 9, retired)
            assert isinstance(one.refresh().problem, SignerUnknown)
            assert release_of(one) == new

    def test_a_bot_that_is_given_a_set_follows_no_older_one(
        self, service: RepositorySimulator, bot: MakeBot, newer: Release, tmp_path: Path
    ) -> None:
        """Somebody who stole a retired key hands out the sets of when it was trusted, and hides what came later."""
        (retired,) = service.trusted
        kept = service.add_key()
        overlap = list(service.key_sets)
        service.retire_key(retired)
        client = bot(public_key=service.exported, cache_dir=tmp_path / "new")
        assert service.exported == f"3:{get_public(kept)}"
        service.key_sets = overlap
        service.forge(newer, 9, retired)
        assert isinstance(client.refresh().problem, SignerUnknown)
        assert not client.active.has_model


class TestFastForward:
    """An attacker raises the version so far that every honest update looks like a rollback."""

    def test_bots_find_back_once_the_stolen_key_is_retired(
        self,
        service: RepositorySimulator,
        client: Client,
        bot: MakeBot,
        old: Release,
        new: Release,
        newer: Release,
        release_of: ReleaseOf,
    ) -> None:
        (stolen,) = service.trusted
        service.forge(newer, HIGHEST, stolen)
        assert client.refresh().problem is None  # it is what a stolen key can do
        assert (client.active.revision, release_of(client)) == (HIGHEST, newer)
        service.stop_attacking()
        service.add_key()
        service.point_at(new)
        assert isinstance(client.refresh().problem, RevisionRefused)
        service.retire_key(stolen)
        assert client.refresh().problem is None
        assert (client.active.revision, release_of(client)) == (service.revision, new)
        service.forge(newer, HIGHEST + 1, stolen)
        for one in (client, bot(public_key=f"1:{get_public(stolen)}")):  # also after a restart
            assert isinstance(one.refresh().problem, SignerUnknown)
            assert release_of(one) == new
        service.stop_attacking()
        assert client.refresh().problem is None

    def test_what_the_remaining_key_has_signed_is_not_forgotten(
        self,
        service: RepositorySimulator,
        client: Client,
        new: Release,
        newer: Release,
        release_of: ReleaseOf,
    ) -> None:
        (stolen,) = service.trusted
        service.add_key()
        service.point_at(new)
        older = service.envelope()
        service.point_at(newer)
        assert client.refresh().problem is None
        service.retire_key(stolen)
        assert client.refresh().problem is None
        service.answers[SIGNED_PATH] = (200, {}, older)
        assert isinstance(client.refresh().problem, RevisionRefused)
        assert release_of(client) == newer


class TestIndefiniteFreeze:
    """An attacker goes on presenting the files that the client has already seen."""

    def test_the_same_answer_for_ever(
        self, service: RepositorySimulator, bot: MakeBot, old: Release, new: Release, release_of: ReleaseOf
    ) -> None:
        now = [service.issued_at]
        service.point_at(old)
        client = bot(public_key=service.exported, clock=lambda: now[0])
        client.refresh()
        service.answers[SIGNED_PATH] = (200, {}, service.envelope())
        now[0] += VALID_FOR + timedelta(seconds=1)
        active = client.refresh()
        assert isinstance(active.problem, SnapshotExpired)
        assert active.stale_since == service.issued_at + VALID_FOR
        assert release_of(client) == old
        service.stop_attacking()
        service.issued_at = now[0]
        service.point_at(new)
        assert client.refresh().problem is None
        assert release_of(client) == new

    def test_an_expired_snapshot_that_is_newer(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        expired = (service.issued_at - timedelta(hours=1)).isoformat()
        service.forge(newer, 2, *service.trusted, expires_at=expired)
        withstands(client, SnapshotExpired)


class TestEndlessData:
    """An attacker answers with a stream of data without end."""

    @pytest.mark.parametrize(
        ("path", "kind"), [(SIGNED_PATH, EnvelopeRefused), ("file", FileRefused)], ids=["snapshot", "file"]
    )
    def test_is_not_read_to_its_end(
        self,
        service: RepositorySimulator,
        client: Client,
        new: Release,
        withstands: Refuses,
        path: str,
        kind: type[ClientError],
    ) -> None:
        service.point_at(new)
        sha256 = new.sha256("BTC", "scaler.json")
        service.send_endlessly(f"/api/v1/artifacts/{sha256}" if path == "file" else path)
        withstands(client, kind, "bytes allowed")

    def test_as_sets_of_keys(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        service.forge(newer, 2, create_key())
        service.send_endlessly(KEYS_PATH)
        withstands(client, SignerUnknown, "bytes allowed")

    @pytest.mark.parametrize("path", [STREAM_PATH, HEARTBEAT_PATH])
    def test_as_a_stream_or_a_heartbeats_answer(
        self, service: RepositorySimulator, client: Client, new: Release, path: str
    ) -> None:
        service.send_endlessly(path)
        with watching(client):
            wait_until(lambda: path in [request.path for request in service.requests], "it is asked")
            service.point_at(new)
            wait_until(lambda: client.active.release == new.number, "the move is followed")


class TestSlowRetrieval:
    """An attacker answers so slowly that the client never goes on: here one byte at a time, without end."""

    @pytest.mark.parametrize(
        ("head", "tail"),
        [
            (b"", b"HTTP/1.1 200 OK\r\n" + b"X-Slow: x\r\n" * 999),
            (OK + b"\r\n", b"x"),
            (OK, b"X: x\r\n" * 999),
        ],
        ids=["a head from its first byte", "a body", "headers without end"],
    )
    def test_of_a_snapshot_ends(
        self,
        service: RepositorySimulator,
        client: Client,
        bot: MakeBot,
        withstands: Refuses,
        head: bytes,
        tail: bytes,
    ) -> None:
        service.send_slowly(SIGNED_PATH, head, tail)
        withstands(bot(public_key=service.exported, timeout_s=0.2), ServiceUnavailable, "too slowly")

    def test_of_a_file_ends(
        self, service: RepositorySimulator, client: Client, bot: MakeBot, new: Release, withstands: Refuses
    ) -> None:
        service.point_at(new)
        service.send_slowly(f"/api/v1/artifacts/{new.sha256('BTC', 'scaler.json')}", OK + b"\r\n")
        withstands(bot(public_key=service.exported, timeout_s=0.2), ServiceUnavailable, "too slowly")

    def test_of_the_sets_of_keys_ends(
        self, service: RepositorySimulator, client: Client, bot: MakeBot, newer: Release, withstands: Refuses
    ) -> None:
        service.forge(newer, 2, create_key())
        service.send_slowly(KEYS_PATH, OK + b"\r\n")
        withstands(bot(public_key=service.exported, timeout_s=0.2), SignerUnknown, "too slowly")

    @pytest.mark.parametrize("path", [STREAM_PATH, HEARTBEAT_PATH])
    def test_of_a_stream_or_a_heartbeats_answer(
        self, service: RepositorySimulator, bot: MakeBot, old: Release, new: Release, path: str
    ) -> None:
        service.point_at(old)
        service.send_slowly(path)
        client = bot(public_key=service.exported, timeout_s=0.2)
        with watching(client):
            wait_until(lambda: path in [request.path for request in service.requests], "it is asked")
            service.point_at(new)
            wait_until(lambda: client.active.release == new.number, "the move is followed")


class TestExtraneousDependencies:
    """An attacker has the client install more than it asked for."""

    def test_a_model_of_a_coin_that_the_release_does_not_have(
        self, service: RepositorySimulator, client: Client, new: Release, withstands: Refuses
    ) -> None:
        service.point_at(new)

        def add_a_coin(document: dict[str, Any]) -> None:
            document["models"]["DOGE"] = document["models"]["BTC"]

        service.edit = add_a_coin
        withstands(client, SnapshotRefused, "there is a model for DOGE")

    def test_a_file_that_the_bundle_does_not_have(
        self, service: RepositorySimulator, client: Client, new: Release, withstands: Refuses
    ) -> None:
        service.point_at(new)

        def add_a_file(document: dict[str, Any]) -> None:
            files = document["models"]["BTC"]["files"]
            files["setup.py"] = files["scaler.json"]

        service.edit = add_a_file
        withstands(client, SetRefused, "BTC: the bundle's files")


class TestMixAndMatch:
    """An attacker combines files that never existed together."""

    def test_one_coin_of_another_release(
        self, service: RepositorySimulator, client: Client, new: Release, newer: Release, withstands: Refuses
    ) -> None:
        service.point_at(new)
        service.files[new.sha256("SOL", "model.onnx")] = newer.file("SOL", "model.onnx")
        assert isinstance(client.refresh().problem, FileRefused)
        service.files[new.sha256("SOL", "model.onnx")] = new.file("SOL", "model.onnx")
        assert client.refresh().problem is None

    def test_two_releases_under_one_revision(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        service.forge(newer, 1, *service.trusted)
        withstands(client, RevisionRefused, "with another release or other files")

    def test_another_services_snapshot_under_the_same_key(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        """Two services that share a key folder: the bot knows the name of its own from the sets of keys."""
        service.replace_key()
        assert client.refresh().problem is None
        service.forge(newer, 2, *service.trusted, service="another-service")
        withstands(client, EnvelopeRefused, "of another service")


class TestWrongSoftwareInstallation:
    """An attacker provides a trusted file that is not the one that the client wanted."""

    def test_another_coins_model(
        self, service: RepositorySimulator, client: Client, new: Release, withstands: Refuses
    ) -> None:
        service.point_at(new)

        def exchange(document: dict[str, Any]) -> None:
            models = document["models"]
            models["BTC"], models["ETH"] = models["ETH"], models["BTC"]

        service.edit = exchange
        withstands(client, SetRefused, "BTC: the bundle's coin: ETH")

    def test_a_set_of_keys_in_place_of_a_snapshot(
        self, service: RepositorySimulator, client: Client, withstands: Refuses
    ) -> None:
        service.tamper = lambda envelope: envelope.update(service.key_sets[0])
        withstands(client, EnvelopeRefused, "not a snapshot")

    def test_a_snapshot_in_place_of_a_set_of_keys(self, service: RepositorySimulator, old: Release) -> None:
        service.point_at(old)
        service.key_sets = [json.loads(service.envelope())]
        with pytest.raises(KeysRefused, match="not a set of keys"):
            PublicKeys(service.exported).follow(sets(service))


class TestMaliciousMirrorsPreventingUpdates:
    """An attacker in control of one source keeps the client from the good ones."""

    def test_a_host_of_files_that_answers_with_rubbish(
        self,
        service: RepositorySimulator,
        other_service: StubService,
        client: Client,
        new: Release,
        withstands: Refuses,
    ) -> None:
        service.point_at(new)

        def name_the_mirror(document: dict[str, Any]) -> None:
            document["models"]["BTC"]["files"]["model.onnx"]["url"] = f"{other_service.url}/model"

        other_service.answers["/model"] = (200, {}, b"rubbish")
        service.edit = name_the_mirror
        withstands(client, FileRefused, "7 bytes came")

    @pytest.mark.parametrize("answer", [b"rubbish", b'{"key_sets": [{}]}', b'{"key_sets": 7}', b"[" * 99_999])
    def test_rubbish_as_sets_of_keys(
        self,
        service: RepositorySimulator,
        client: Client,
        new: Release,
        release_of: ReleaseOf,
        answer: bytes,
    ) -> None:
        service.add_key()
        service.answers[KEYS_PATH] = (200, {}, answer)
        service.point_at(new)
        assert isinstance(client.refresh().problem, KeysRefused)
        assert release_of(client) == new


class TestVulnerabilityToKeyCompromises:
    """An attacker who has one key can compromise clients: for how long, and what ends it."""

    def test_a_retired_key_is_worth_nothing(
        self, service: RepositorySimulator, client: Client, newer: Release, withstands: Refuses
    ) -> None:
        (stolen,) = service.trusted
        service.replace_key()
        assert client.refresh().problem is None
        service.forge(newer, 2, stolen)
        withstands(client, SignerUnknown)

    def test_keys_given_by_hand_end_what_a_thief_took_over(
        self,
        service: RepositorySimulator,
        client: Client,
        bot: MakeBot,
        new: Release,
        newer: Release,
        release_of: ReleaseOf,
    ) -> None:
        """A single key can be worth no more than that (ADR 0011). The way back is in docs/operations/bots.md."""
        (stolen,), thief, genuine = service.trusted, create_key(), list(service.key_sets)
        service.publish_keys(thief, by=[stolen])
        service.forge(newer, HIGHEST, thief)
        client.refresh()
        assert release_of(client) == newer
        service.stop_attacking()
        service.key_sets = genuine
        service.replace_key()
        service.point_at(new)
        assert isinstance(client.refresh().problem, SignerUnknown)
        restarted = bot(public_key=service.exported)
        assert restarted.refresh().problem is None
        assert (restarted.active.revision, release_of(restarted)) == (service.revision, new)


class TestKeysRotateInBand:
    """As the root of TUF: each set is signed by a key of the one before, and no version is skipped or repeated."""

    def test_a_bot_learns_the_new_key_and_forgets_the_old_one(
        self,
        service: RepositorySimulator,
        client: Client,
        bot: MakeBot,
        new: Release,
        newer: Release,
        release_of: ReleaseOf,
    ) -> None:
        first = service.trusted[0]
        second = service.add_key()
        service.issued_at += timedelta(minutes=1)
        assert client.refresh().problem is None
        assert trusted(client) == {first.public_key.keyid, second.public_key.keyid}
        service.retire_key(first)
        service.point_at(new)
        assert client.refresh().problem is None
        assert trusted(client) == {second.public_key.keyid}
        service.is_away = True
        restarted = bot(public_key=f"1:{get_public(first)}")
        assert trusted(restarted) == {second.public_key.keyid}
        assert release_of(restarted) == new
        service.is_away = False

    @pytest.mark.parametrize("text", ["exported", "without a version"])
    def test_a_bot_that_was_off_walks_through_every_change(
        self,
        service: RepositorySimulator,
        bot: MakeBot,
        new: Release,
        release_of: ReleaseOf,
        text: str,
    ) -> None:
        given = service.exported if text == "exported" else get_public(*service.trusted)
        for _ in range(3):
            service.replace_key()
        service.point_at(new)
        client = bot(public_key=given)
        assert client.refresh().problem is None
        assert release_of(client) == new
        assert trusted(client) == {service.trusted[0].public_key.keyid}

    def test_a_bot_that_watches_follows_a_rotation(
        self, service: RepositorySimulator, client: Client, new: Release, release_of: ReleaseOf
    ) -> None:
        with watching(client):
            service.replace_key()
            service.point_at(new)
            wait_until(lambda: client.active.release == new.number, "the move is followed")
            wait_until(lambda: service.heartbeats, "a heartbeat")
            wait_until(
                lambda: service.heartbeats[-1]["trusted_keys"] == [service.trusted[0].public_key.keyid],
                "it says which key it trusts",
            )
        assert release_of(client) == new

    def test_a_set_between_is_missing(self, service: RepositorySimulator) -> None:
        keys = PublicKeys(service.exported)
        service.replace_key()
        del service.key_sets[1]
        with pytest.raises(KeysRefused, match="one between is missing"):
            keys.follow(sets(service))

    def test_a_set_between_is_signed_by_another_key(self, service: RepositorySimulator) -> None:
        keys = PublicKeys(service.exported)
        thief = create_key()
        service.publish_keys(thief, by=[thief])
        service.publish_keys(*service.trusted, by=service.trusted)
        with pytest.raises(KeysRefused, match="set 2 is signed by no key of set 1"):
            keys.follow(sets(service))

    def test_a_set_with_the_same_version_again_changes_nothing(self, service: RepositorySimulator) -> None:
        keys = PublicKeys(service.exported).follow(sets(service))
        service.publish_keys(create_key(), by=service.trusted, version=1)
        assert keys.follow(sets(service)) == keys

    @pytest.mark.parametrize("count", [0, 9])
    def test_a_set_of_no_keys_or_of_too_many(self, service: RepositorySimulator, count: int) -> None:
        keys = PublicKeys(service.exported)
        service.publish_keys(*(create_key() for _ in range(count)), by=service.trusted)
        with pytest.raises(KeysRefused, match="must have 1 to 8"):
            keys.follow(sets(service))

    def test_a_set_of_another_service(self, service: RepositorySimulator) -> None:
        keys = PublicKeys(service.exported).follow(sets(service))
        service.publish_keys(create_key(), by=service.trusted)
        keys = keys.follow(sets(service))
        service.publish_keys(create_key(), by=service.trusted, service="another-service")
        with pytest.raises(KeysRefused):
            keys.follow(sets(service))

    def test_sets_that_cannot_be_saved_are_followed(
        self,
        service: RepositorySimulator,
        client: Client,
        new: Release,
        release_of: ReleaseOf,
        cache_dir: Path,
    ) -> None:
        service.replace_key()
        service.announce(new)
        (cache_dir / "pointers").chmod(0o500)
        service.point_at(new)
        client.refresh()
        (cache_dir / "pointers").chmod(0o700)
        assert trusted(client) == {service.trusted[0].public_key.keyid}
        assert release_of(client) == new
        assert client.refresh().problem is None
        assert len(list((cache_dir / "pointers").glob("*.keys"))) == 1

    def test_saved_sets_that_were_edited_are_not_trusted(
        self, service: RepositorySimulator, client: Client, bot: MakeBot, cache_dir: Path
    ) -> None:
        first = service.trusted[0]
        service.replace_key()
        client.refresh()
        (path,) = (cache_dir / "pointers").glob("*.keys")
        thief = create_key()
        document = json.loads(path.read_bytes())
        service.publish_keys(thief, by=[thief], version=4)
        document["key_sets"] = sets(service).decode()
        path.write_text(json.dumps(document))
        assert trusted(bot(public_key=f"1:{get_public(first)}")) == {first.public_key.keyid}


def trusted(client: Client) -> set[str]:
    return set(client._updater.build_heartbeat("x")["trusted_keys"])


def sets(service: RepositorySimulator) -> bytes:
    return json.dumps({"key_sets": service.key_sets}).encode()


def withstands_keys(service: RepositorySimulator, client: Client, words: str) -> None:
    problem = client.refresh().problem
    assert isinstance(problem, SignerUnknown)
    assert words in str(problem)
