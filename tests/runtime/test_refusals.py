"""Answers that must not be followed. Each has its own message, and the set in use stays whole."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from crpbot_runtime import Client, Misconfigured
from crpbot_runtime.errors import (
    EnvelopeRefused,
    FileRefused,
    NotAuthorised,
    RevisionRefused,
    ServiceUnavailable,
    SetRefused,
    SnapshotRefused,
)
from tests.runtime.conftest import COINS, MakeBot, ReleaseOf
from tests.runtime.stub_service import HALF, SIGNED_PATH, Release, StubService

Refuses = Callable[..., None]


@pytest.fixture
def client(service: StubService, bot: MakeBot, old: Release) -> Client:
    """A client that follows the release `old` since revision 1."""
    service.point_at(old)
    client = bot()
    assert client.refresh().problem is None
    return client


@pytest.fixture
def refuses(old: Release, candles: pl.DataFrame, release_of: ReleaseOf) -> Refuses:
    """Expects a client to refuse what the service says now, in these words, and to stay on `old` with every coin."""

    def expect(client: Client, kind: type[Exception], *words: str) -> None:
        problem = client.refresh().problem
        assert isinstance(problem, kind), problem
        for word in words:
            assert word in str(problem)
        assert release_of(client) == old
        decision = client.predict("BTC", candles)
        assert decision.stale_since is not None
        assert str(problem) in decision.reason

    return expect


def test_a_file_with_other_bytes(
    service: StubService, client: Client, new: Release, refuses: Refuses
) -> None:
    service.point_at(new)
    content = bytearray(new.file("ETH", "model.onnx"))
    content[100] ^= 1
    service.files[new.sha256("ETH", "model.onnx")] = bytes(content)
    refuses(client, FileRefused, "ETH: model.onnx: its sha256 is")


def test_a_file_of_another_coin(service: StubService, client: Client, new: Release, refuses: Refuses) -> None:
    service.point_at(new)
    service.files[new.sha256("ETH", "model.onnx")] = new.file("BTC", "model.onnx")
    refuses(client, FileRefused, "ETH: model.onnx: its sha256 is")


def test_a_file_cut_short(service: StubService, client: Client, new: Release, refuses: Refuses) -> None:
    service.point_at(new)
    content = new.file("BTC", "model.onnx")
    service.files[new.sha256("BTC", "model.onnx")] = content[:-1]
    refuses(client, FileRefused, f"{len(content) - 1:,} bytes came where {len(content):,}")


def test_a_file_longer_than_announced_is_not_read_to_its_end(
    service: StubService, client: Client, new: Release, refuses: Refuses
) -> None:
    service.point_at(new)
    content = new.file("BTC", "scaler.json")
    service.files[new.sha256("BTC", "scaler.json")] = content + bytes(20_000_000)
    refuses(client, FileRefused, f"more than the {len(content):,} bytes")


def test_a_file_that_never_ends(
    service: StubService, client: Client, new: Release, bot: MakeBot, refuses: Refuses
) -> None:
    service.point_at(new)
    service.files[new.sha256("BTC", "model.onnx")] = HALF
    hasty = bot(timeout_s=0.2)
    refuses(hasty, ServiceUnavailable, "cannot be reached")


def test_a_file_that_is_not_there(
    service: StubService, client: Client, new: Release, refuses: Refuses
) -> None:
    service.point_at(new)
    del service.files[new.sha256("SOL", "weights.safetensors")]
    refuses(client, ServiceUnavailable, "404", "there is no such page")


def test_one_bad_coin_keeps_the_whole_former_set_until_it_is_mended(
    service: StubService, client: Client, new: Release, release_of: ReleaseOf, refuses: Refuses
) -> None:
    service.point_at(new)
    sha256 = new.sha256("SOL", "model.onnx")
    service.files[sha256] = b"not a model"
    refuses(client, FileRefused)
    service.files[sha256] = new.file("SOL", "model.onnx")
    assert client.refresh().problem is None
    assert release_of(client) == new


def announce_other_size(document: dict[str, Any]) -> None:
    document["models"]["BTC"]["files"]["model.onnx"]["size"] += 1


def announce_other_bundle(document: dict[str, Any]) -> None:
    document["models"]["BTC"]["bundle"] = "sha256:" + "ab" * 32


def swap_coins(document: dict[str, Any]) -> None:
    models = document["models"]
    models["BTC"], models["ETH"] = models["ETH"], models["BTC"]


def name_another_line(document: dict[str, Any]) -> None:
    document["line"] = "v6_enhanced"


def hide_the_simulation(document: dict[str, Any]) -> None:
    document["simulated"] = False


def change_the_schema(document: dict[str, Any]) -> None:
    document["models"]["ETH"]["schema_digest"] = "sha256:" + "cd" * 32


def name_an_unknown_schema(document: dict[str, Any]) -> None:
    document["models"]["ETH"]["feature_schema"] = "absolute99"


def reorder_the_classes(document: dict[str, Any]) -> None:
    document["models"]["ETH"]["classes"].reverse()


def leave_a_file_out(document: dict[str, Any]) -> None:
    del document["models"]["BTC"]["files"]["scaler.json"]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (announce_other_size, FileRefused, "bytes came where"),
        (announce_other_bundle, SetRefused, "BTC: manifest.json makes this bundle"),
        (swap_coins, SetRefused, "BTC: the bundle's coin: ETH"),
        (name_another_line, SetRefused, "BTC: the bundle's line"),
        (hide_the_simulation, SetRefused, "simulated market"),
        (change_the_schema, SetRefused, "ETH: relative72 is sha256:cdcd"),
        (name_an_unknown_schema, SetRefused, "does not know the features 'absolute99'"),
        (reorder_the_classes, SetRefused, "ETH: the bundle's classes"),
        (leave_a_file_out, SetRefused, "BTC: scaler.json is missing"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_document_that_does_not_fit_the_bundles(
    service: StubService,
    client: Client,
    new: Release,
    change: Callable[[dict[str, Any]], None],
    kind: type[Exception],
    words: str,
    refuses: Refuses,
) -> None:
    service.point_at(new)
    service.edit = change
    refuses(client, kind, words)


def test_a_release_without_a_coin_the_bot_trades(
    service: StubService, bot: MakeBot, old: Release, new: Release, refuses: Refuses
) -> None:
    service.point_at(old)
    client = bot(coins=COINS)
    client.refresh()
    service.point_at(new)

    def drop_it(document: dict[str, Any]) -> None:
        del document["models"]["SOL"]
        document["coins"].remove("SOL")

    service.edit = drop_it
    refuses(client, SnapshotRefused, "lacks SOL")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document["models"].pop("SOL"), "there is no model for SOL"),
        (
            lambda document: document["coins"].remove("ETH"),
            "there is a model for ETH, not a coin of the release",
        ),
        (lambda document: document.pop("coins"), "coins is missing"),
    ],
    ids=["one missing", "one too many", "none named"],
)
def test_a_set_that_is_not_the_coins_of_the_release(
    service: StubService,
    client: Client,
    new: Release,
    refuses: Refuses,
    change: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    service.point_at(new)
    service.edit = change
    refuses(client, SnapshotRefused, words)


def test_a_lower_revision_of_the_same_service(
    service: StubService, client: Client, old: Release, new: Release, refuses: Refuses
) -> None:
    service.point_at(old, revision=5)
    client.refresh()
    service.point_at(new, revision=4)
    refuses(client, RevisionRefused, "revision 4", "revision 5 was seen already")


def test_a_lower_revision_is_remembered_over_a_restart(
    service: StubService, bot: MakeBot, old: Release, new: Release, refuses: Refuses
) -> None:
    service.point_at(old, revision=5)
    bot().refresh()
    service.point_at(new, revision=4)
    refuses(bot(), RevisionRefused, "revision 5 was seen already")


def test_a_revision_that_was_seen_but_could_not_be_followed_counts_as_seen(
    service: StubService, client: Client, old: Release, new: Release, refuses: Refuses
) -> None:
    service.point_at(new, revision=3)
    service.edit = announce_other_size
    client.refresh()
    service.point_at(new, revision=2)
    service.edit = lambda document: None
    refuses(client, RevisionRefused, "revision 3 was seen already")
    service.point_at(old, revision=1)
    refuses(client, RevisionRefused, "confirms revision 1, but revision 3 was seen")


def test_the_same_revision_with_another_release(
    service: StubService, client: Client, new: Release, refuses: Refuses
) -> None:
    service.point_at(new, revision=1)
    refuses(client, RevisionRefused, "revision 1 was seen already, with another release")


def test_the_same_revision_in_other_words_is_followed(service: StubService, client: Client) -> None:
    service.edit = lambda document: document.update(reason="said better")
    active = client.refresh()
    assert (active.problem, active.reason) == (None, "said better")


def test_another_service_counts_its_own_revisions(service: StubService, client: Client, new: Release) -> None:
    service.point_at(new, revision=9)
    client.refresh()
    service.service_name = "a new service"
    service.point_at(new, revision=1)
    assert client.refresh().problem is None


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, NotAuthorised, "the token was not accepted"),
        (403, NotAuthorised, "scope"),
        (404, ServiceUnavailable, "is the address right?"),
        (500, ServiceUnavailable, "answers 500"),
        (503, ServiceUnavailable, "answers 503"),
    ],
)
def test_an_answer_that_is_none(
    service: StubService, client: Client, status: int, kind: type[Exception], words: str, refuses: Refuses
) -> None:
    service.answers[SIGNED_PATH] = (status, {}, b"<html>not a problem document</html>")
    refuses(client, kind, words)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"service": "x"}', b"\xff\xfe", b"[" * 100_000, b"x" * 3_000_000]
)
def test_a_body_that_is_no_snapshot(
    service: StubService, client: Client, body: bytes, refuses: Refuses
) -> None:
    service.answers[SIGNED_PATH] = (200, {}, body)
    refuses(client, EnvelopeRefused)


def test_a_compressed_answer_is_not_unpacked(service: StubService, client: Client, refuses: Refuses) -> None:
    service.answers[SIGNED_PATH] = (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b bomb")
    refuses(client, EnvelopeRefused, "compressed")


def test_an_etag_that_no_request_can_carry(service: StubService, client: Client, new: Release) -> None:
    """It is left aside: sent back it would be an error of the HTTP library, with every question from then on."""
    service.point_at(new)
    service.answers[SIGNED_PATH] = (200, {"ETag": '"\xff"'}, service.envelope())
    for _ in range(2):
        active = client.refresh()
        assert (active.release, active.problem) == (new.number, None)


def test_a_304_that_nobody_asked_for(service: StubService, bot: MakeBot) -> None:
    service.answers[SIGNED_PATH] = (304, {}, b"")
    assert "answers 304" in str(bot().refresh().problem)


def test_a_wrong_token_is_named_as_the_reason_and_not_shown(
    service: StubService, bot: MakeBot, old: Release, caplog: pytest.LogCaptureFixture
) -> None:
    service.point_at(old)
    with caplog.at_level("DEBUG"):
        problem = bot(token="wrong-Qq7731").refresh().problem
    assert isinstance(problem, NotAuthorised)
    assert "Bearer [token] is not a token of this service; the token was not accepted" in str(problem)
    assert "wrong-Qq7731" not in caplog.text + str(problem) + repr(problem.__dict__)


@pytest.mark.parametrize("token", ["", "  ", "two words", "line\nbreak", "tök€n"])
def test_a_token_that_is_none_is_refused_without_being_shown(bot: MakeBot, token: str) -> None:
    with pytest.raises(Misconfigured, match="token") as refused:
        bot(token=token)
    assert not token.strip() or token not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "service.example", "ftp://service.example", "http://", "http://bot:pw@service.example"]
)
def test_an_address_that_cannot_be_used(bot: MakeBot, url: str) -> None:
    with pytest.raises(Misconfigured, match="the service's address"):
        bot(url=url)


def test_an_unencrypted_way_through_the_internet_is_warned_of(
    bot: MakeBot, caplog: pytest.LogCaptureFixture
) -> None:
    bot(url="http://service.example")
    assert "http://service.example is not https" in caplog.text
    caplog.clear()
    for url in ("https://service.example", "http://localhost:1", "http://web:8000", "http://10.0.0.7"):
        bot(url=url)
    assert caplog.text == ""


@pytest.mark.parametrize("path", [SIGNED_PATH, "the other service"])
def test_a_redirect_is_not_followed(
    service: StubService, other_service: StubService, client: Client, refuses: Refuses, path: str
) -> None:
    location = path if path == SIGNED_PATH else f"{other_service.url}{SIGNED_PATH}?signature=1"
    service.answers[SIGNED_PATH] = (302, {"Location": location}, b"")
    asked = len(service.requests)
    refuses(client, ServiceUnavailable, "answers 302 and names http://127.0.0.1:", "is not followed")
    assert len(service.requests) == asked + 1
    assert other_service.requests == []


def test_a_file_may_come_from_another_host_which_never_sees_the_token(
    service: StubService, other_service: StubService, client: Client, new: Release, release_of: ReleaseOf
) -> None:
    """As with files in an object store: what arrives is checked by its digest, wherever it came from."""
    service.point_at(new)
    content = new.file("BTC", "model.onnx")

    def name_the_other_host(document: dict[str, Any]) -> None:
        document["models"]["BTC"]["files"]["model.onnx"]["url"] = f"{other_service.url}/bucket/model"

    service.edit = name_the_other_host
    other_service.answers["/bucket/model"] = (200, {}, content)
    assert client.refresh().problem is None
    assert release_of(client) == new
    assert [request.path for request in other_service.requests] == ["/bucket/model"]
    assert "Authorization" not in other_service.requests[0].headers
