"""The snapshot document: what is read from it, and what is refused with its place and reason."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from crpbot_runtime.errors import SnapshotRefused
from crpbot_runtime.protocol.snapshot import MAX_FILE_BYTES, parse_snapshot

HEX = "ab" * 32


def document() -> dict[str, Any]:
    file = {"sha256": HEX, "size": 12, "url": "/api/v1/artifacts/" + HEX}
    model = {
        "bundle": "sha256:" + HEX,
        "feature_schema": "relative72",
        "schema_digest": "sha256:" + HEX,
        "classes": ["down", "neutral", "up"],
        "files": {"model.onnx": dict(file), "manifest.json": dict(file)},
    }
    return {
        "service": "gate",
        "revision": 7,
        "line": "v7_fixed",
        "interval_seconds": 3600,
        "release": 3,
        "moved_at": "2026-11-22T08:00:00Z",
        "reason": "all gates\x1b[31m passed",
        "simulated": False,
        "models": {"BTC": model},
        "something": "a later version says more",
    }


def test_the_document_of_the_design_is_read() -> None:
    _, snapshot = parse_snapshot(json.dumps(document()).encode())
    assert (snapshot.service, snapshot.revision, snapshot.line, snapshot.release) == (
        "gate",
        7,
        "v7_fixed",
        3,
    )
    assert snapshot.moved_at == datetime(2026, 11, 22, 8, tzinfo=UTC)
    assert snapshot.models["BTC"].files["model.onnx"].size == 12


def test_control_characters_of_a_reason_reach_no_terminal() -> None:
    assert parse_snapshot(json.dumps(document()).encode())[1].reason == "all gates [31m passed"


def test_an_offline_pointer_is_read() -> None:
    offline = document() | {"line": None, "release": None, "interval_seconds": None, "models": {}}
    _, snapshot = parse_snapshot(json.dumps(offline).encode())
    assert (snapshot.release, snapshot.line, snapshot.models) == (None, None, {})


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a protocol in text": (lambda d: d.update(protocol="2"), "protocol is not of type dict"),
    "a protocol zero": (lambda d: d.update(protocol={"version": 0}), "protocol.version is 0"),
    "a protocol without readers": (
        lambda d: d.update(protocol={"version": 2}),
        "protocol.oldest_reader is missing",
    ),
    "no service": (lambda d: d.pop("service"), "service is missing"),
    "an empty service": (lambda d: d.update(service=" "), "service is not of the form"),
    "revision zero": (lambda d: d.update(revision=0), "revision is 0"),
    "a true revision": (lambda d: d.update(revision=True), "revision is not of type int"),
    "a revision in text": (lambda d: d.update(revision="7"), "revision is not of type int"),
    "a broken revision": (lambda d: d.update(revision=7.5), "revision is not of type int"),
    "a line of many words": (lambda d: d.update(line="../v7"), "line is not of the form"),
    "a release without a line": (lambda d: d.update(line=None), "must be given together"),
    "a line without a release": (lambda d: d.update(release=None), "must be given together"),
    "a release without models": (lambda d: d.update(models={}), "must be given together"),
    "models in a list": (lambda d: d.update(models=[]), "models is not of type dict"),
    "a time without a zone": (lambda d: d.update(moved_at="2026-11-22T08:00:00"), "no time zone"),
    "no time": (lambda d: d.update(moved_at="yesterday"), "is not a time"),
    "nothing about simulation": (lambda d: d.pop("simulated"), "simulated is missing"),
    "a coin with a path": (lambda d: d["models"].update({"../x": {}}), "the coin name '../x'"),
    "a model that is text": (lambda d: d["models"].update(BTC="x"), "models.BTC is not an object"),
    "a bundle without its prefix": (lambda d: d["models"]["BTC"].update(bundle=HEX), "models.BTC.bundle"),
    "no manifest": (lambda d: d["models"]["BTC"]["files"].pop("manifest.json"), "lacks manifest.json"),
    "classes that are numbers": (lambda d: d["models"]["BTC"].update(classes=[1]), "other than text"),
}
FILE_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "an empty file": ({"size": 0}, "size is 0"),
    "a negative size": ({"size": -1}, "size is -1"),
    "a monstrous size": ({"size": MAX_FILE_BYTES + 1}, "more than a file may have"),
    "a short digest": ({"sha256": "ab"}, "sha256 is not of the form"),
    "an upper-case digest": ({"sha256": HEX.upper()}, "sha256 is not of the form"),
    "no address": ({"url": None}, "url is not of type str"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_wrong_document_is_refused(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    wrong = document()
    change(wrong)
    with pytest.raises(SnapshotRefused) as refused:
        parse_snapshot(json.dumps(wrong).encode())
    assert words in str(refused.value)


@pytest.mark.parametrize(("change", "words"), FILE_CHANGES.values(), ids=FILE_CHANGES)
def test_a_wrong_file_is_refused(change: dict[str, Any], words: str) -> None:
    wrong = document()
    wrong["models"]["BTC"]["files"]["model.onnx"] |= change
    with pytest.raises(SnapshotRefused) as refused:
        parse_snapshot(json.dumps(wrong).encode())
    assert f"models.BTC.files.model.onnx.{next(iter(change))}" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".hidden", "", "a\x00b", "C:x", "x..y"])
def test_no_file_name_is_a_path(name: str) -> None:
    wrong = document()
    files = wrong["models"]["BTC"]["files"]
    files[name] = files["model.onnx"]
    with pytest.raises(SnapshotRefused, match="the file name"):
        parse_snapshot(json.dumps(wrong).encode())


def test_a_key_that_stands_twice_is_refused() -> None:
    body = json.dumps(document()).replace('"revision": 7', '"revision": 7, "revision": 8')
    with pytest.raises(SnapshotRefused, match="twice"):
        parse_snapshot(body.encode())


def test_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(SnapshotRefused, match="NaN"):
        parse_snapshot(json.dumps(document() | {"extra": float("nan")}).encode())


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"reason": "other words"}, True),
        ({"moved_at": "2027-01-01T00:00:00+00:00"}, True),
        ({"release": 4}, False),
        ({"line": "v5"}, False),
        ({"revision": 8}, False),
        ({"service": "other"}, False),
    ],
)
def test_content_is_what_decides_which_model_runs(change: dict[str, Any], is_same: bool) -> None:
    _, first = parse_snapshot(json.dumps(document()).encode())
    _, second = parse_snapshot(json.dumps(document() | change).encode())
    assert (first.content == second.content) is is_same


def test_content_knows_every_file_and_not_its_address() -> None:
    _, first = parse_snapshot(json.dumps(document()).encode())
    other = document()
    other["models"]["BTC"]["files"]["model.onnx"]["url"] = "https://elsewhere.example/x"
    assert parse_snapshot(json.dumps(other).encode())[1].content == first.content
    other["models"]["BTC"]["files"]["model.onnx"]["sha256"] = "cd" * 32
    assert parse_snapshot(json.dumps(other).encode())[1].content != first.content
