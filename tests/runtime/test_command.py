"""`python -m crpbot_runtime`: what a person or a shell script sees of the bot's side."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from crpbot_runtime.__main__ import main
from tests.runtime.stub_service import TOKEN, Release, StubService

pytestmark = pytest.mark.slow

ANY_AGE = ("--max-age", "inf")
"""The simulated candles are of the past."""


@pytest.fixture(autouse=True)
def environment(service: StubService, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRPBOT_URL", service.url)
    monkeypatch.setenv("CRPBOT_TOKEN", TOKEN)
    monkeypatch.setenv("CRPBOT_PUBLIC_KEY", service.public_key)
    monkeypatch.setenv("CRPBOT_CACHE_DIR", str(cache_dir))


@pytest.fixture
def candle_file(candles: pl.DataFrame, tmp_path: Path) -> str:
    path = tmp_path / "BTC.csv"
    candles.write_csv(path)
    return str(path)


def test_predict_prints_the_decision_and_which_model_spoke(
    service: StubService, old: Release, candle_file: str
) -> None:
    """As a process of its own, the way a person calls it."""
    service.point_at(old, revision=7)
    command = [
        sys.executable,
        "-m",
        "crpbot_runtime",
        "predict",
        "--coin",
        "BTC",
        "--candles",
        candle_file,
        *ANY_AGE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["direction"] in ("down", "neutral", "up")
    assert said["probabilities"].startswith("down 0.")
    assert said["line"] == f"{old.line}  (trained on a simulated market)"
    assert (said["release"], said["revision"]) == (str(old.number), "7")


def test_predict_as_json(
    service: StubService, old: Release, candle_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service.point_at(old)
    assert main(["predict", "--coin", "ETH", "--candles", candle_file, *ANY_AGE, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["coin"], said["line"], said["release"], said["revision"]) == ("ETH", old.line, old.number, 1)
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert said["stale_since"] is None


def test_predict_from_the_cache_warns_that_it_is_stale(
    service: StubService, old: Release, candle_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service.point_at(old)
    arguments = ["predict", "--coin", "BTC", "--candles", candle_file, *ANY_AGE]
    main(arguments)
    service.stop()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "stale since" in out
    assert err.startswith("warning: stale since")


def test_predict_without_a_model_is_neutral_with_a_status_of_its_own(
    service: StubService, candle_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--coin", "BTC", "--candles", candle_file, *ANY_AGE]) == 3
    out, err = capsys.readouterr()
    assert "neutral" in out
    assert "no pointer yet" in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not candles", "BTC.csv"),
        ("timestamp,open,high,low,close,volume\n2026-01-01T00:00:00Z,1,0.5,0.4,0.45,1\n" * 2, "row 1"),
    ],
)
def test_bad_candles_are_refused_by_row_and_reason(
    service: StubService,
    old: Release,
    candle_file: str,
    capsys: pytest.CaptureFixture[str],
    content: str,
    words: str,
) -> None:
    service.point_at(old)
    Path(candle_file).write_text(content)
    assert main(["predict", "--coin", "BTC", "--candles", candle_file, *ANY_AGE]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err


def test_too_few_candles_and_an_unknown_coin_are_refused(
    service: StubService,
    old: Release,
    candles: pl.DataFrame,
    candle_file: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.point_at(old)
    assert main(["predict", "--coin", "DOGE", "--candles", candle_file, *ANY_AGE]) == 1
    assert "'DOGE' is not one of BTC, ETH, SOL" in capsys.readouterr().err
    candles.tail(100).write_csv(candle_file)
    assert main(["predict", "--coin", "BTC", "--candles", candle_file, *ANY_AGE]) == 1
    assert "2,048" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("CRPBOT_TOKEN", "there is no token"),
        ("CRPBOT_URL", "give --url"),
        ("CRPBOT_PUBLIC_KEY", "there is no public key"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, words: str
) -> None:
    monkeypatch.delenv(variable)
    assert main(["active"]) == 1
    assert words in capsys.readouterr().err


def test_active_prints_what_is_live(
    service: StubService, old: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    service.point_at(old)
    assert main(["active"]) == 0
    out = capsys.readouterr().out
    for words in (old.line, "BTC, ETH, SOL", "2026-11-22 08:00:00Z", "a test moved it"):
        assert words in out


def test_active_says_when_the_pointer_is_offline(
    service: StubService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.point_at(None)
    assert main(["active", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["line"] is None


def test_active_fails_where_the_service_does_not_confirm(
    service: StubService, old: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.point_at(old)
    main(["active"])
    monkeypatch.setenv("CRPBOT_TOKEN", "revoked-Kk2211")
    assert main(["active"]) == 1
    out, err = capsys.readouterr()
    assert "stale since" in out
    assert "the token was not accepted" in err
    assert "revoked-Kk2211" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_prints_every_change_until_it_is_interrupted(
    service: StubService, old: Release, new: Release, number: signal.Signals
) -> None:
    service.point_at(old)
    command = [sys.executable, "-m", "crpbot_runtime", "watch", "--every", "0.05", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["release"] == old.number
        service.point_at(new)
        assert json.loads(child.stdout.readline())["release"] == new.number
        child.send_signal(number)
        rest, errors = child.communicate(timeout=20)
    assert (child.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("arguments", [[], ["buy"], ["predict", "--coin", "BTC"], ["watch", "--every", "0"]])
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m crpbot_runtime" in capsys.readouterr().err
