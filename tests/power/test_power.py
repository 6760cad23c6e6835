"""How often the gates release and are fooled: that it is measured as it says, and the border at few repetitions."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.power import __main__ as command
from benchmarks.power import border, page
from benchmarks.power.border import ALLOWED, BEYOND, TRUE_ACCURACY, forecasters, judge_border
from benchmarks.power.jobs import Job, jobs
from benchmarks.power.markets import POLICIES, Market, judge
from benchmarks.power.results import Results
from benchmarks.power.shares import Share

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run over a tiny grid: two markets, and one series at the border."""
    folder = tmp_path_factory.mktemp("power")
    command.main(["--quick", "--results", str(folder / "power.jsonl"), "--docs", str(folder)])
    return folder


def market(drift: float, number: int, *, is_released: bool) -> dict:
    coin = {
        "refused_by": {} if is_released else {"accuracy": "failed"},
        "accuracy": 0.7,
        "over_last_move": 0.03,
    }
    return {
        "kind": "market", "drift": drift, "number": number, "bars": 43_800, "epochs": 50,
        "coins": {"BTC": coin}, "is_released": is_released,
    }  # fmt: skip


@pytest.mark.long
def test_a_market_without_drift_is_refused_by_measuring_its_bytes(quick: Path) -> None:
    found = Results.read(quick / "power.jsonl")
    refused = next(line for line in found.markets if line["drift"] == 0)
    assert refused["is_released"] is False
    assert list(refused["coins"]) == ["BTC"], "coins after a refused one are not trained"
    assert {"accuracy", "skill"} <= set(refused["coins"]["BTC"]["refused_by"])
    assert refused["coins"]["BTC"]["accuracy"] < 0.45


@pytest.mark.long
def test_a_run_ends_with_a_page_of_all_it_found(quick: Path) -> None:
    said = (quick / "power.md").read_text()
    assert "| 0 | 6,000 | 0.0% of 1 (0.0% – 97.5%) |" in said
    assert all(f"| {name} |" in said for name, _ in forecasters(2_000, seed=0))
    assert ("![released](power-released.png)" in said) == (quick / "power-released.png").exists()


@pytest.mark.long
def test_drawing_alone_runs_nothing(quick: Path, tmp_path: Path) -> None:
    before = (quick / "power.jsonl").read_bytes()
    command.main(["--draw", "--results", str(quick / "power.jsonl"), "--docs", str(tmp_path)])
    assert (quick / "power.jsonl").read_bytes() == before
    assert (tmp_path / "power.md").read_text() == (quick / "power.md").read_text()


@pytest.mark.long
def test_without_a_browser_the_page_says_so(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRPBOT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    page.write(Results.read(quick / "power.jsonl"), tmp_path)
    assert "Not drawn: no Chromium here" in (tmp_path / "power.md").read_text()


@pytest.mark.long
def test_a_market_with_much_to_learn_is_released() -> None:
    found = judge(Market(1.8, 0, bars=24_000, epochs=8))
    under: dict[str, dict] = {policy: {} for policy in POLICIES}
    assert {coin: figures["refused_by"] for coin, figures in found["coins"].items()} == {
        "BTC": under, "ETH": under, "SOL": under,
    }  # fmt: skip
    lines = Results()
    lines.add({"kind": "market", **found})
    assert [line["is_released"] for line in lines.markets] == [True]


@pytest.mark.long
def test_under_a_draft_the_same_markets_are_judged_by_their_lead(quick: Path) -> None:
    full, draft = (Results.read(quick / "power.jsonl", policy) for policy in ("full", "real-markets"))
    assert [line["is_released"] for line in draft.markets] == [False, False]
    assert [line["seconds"] for line in draft.markets] == [line["seconds"] for line in full.markets]
    refused = next(line for line in draft.markets if line["drift"] == 0)["coins"]["BTC"]
    assert "lead" in refused["refused_by"] and "class_balance" not in refused["refused_by"]
    assert refused["over_base_rate"] == pytest.approx(refused["accuracy"] - 1 / 3, abs=0.06)
    page = (quick / "power-real-markets.md").read_text()
    assert "under a policy for real markets" in page and "Nothing to learn: 0.0% of 1" in page
    assert "## The border" not in page and draft.borders == []
    assert "(power-real-markets-released.png)" in page or "Not drawn" in page


def of_draft(drift: float, number: int, lead: float, *, is_released: bool) -> dict:
    line = market(drift, number, is_released=is_released)
    line["coins"]["BTC"] = {**line["coins"]["BTC"], "over_base_rate": lead}
    return line


def test_where_half_are_released_is_read_between_two_drifts() -> None:
    lines = [of_draft(0.25, n, 0.02 + n / 1_000, is_released=n < 1) for n in range(4)]
    lines += [of_draft(0.5, n, 0.06, is_released=n < 3) for n in range(4)]
    half = Results(lines, [], "real-markets").find_half()
    assert half == pytest.approx((0.375, 0.5 * (0.0215 + 0.06)))
    assert Results(lines[:4], [], "real-markets").find_half() is None


def test_a_draft_may_release_one_market_of_sixty_without_drift() -> None:
    lines = [of_draft(0.0, n, 0.0, is_released=n < 1) for n in range(60)]
    assert Results(lines, [], "real-markets").shortfalls() == []
    lines[1]["is_released"] = True
    assert len(Results(lines, [], "real-markets").shortfalls()) == 1


def test_no_two_markets_share_their_candles() -> None:
    markets = [job.market for job in jobs(is_quick=False) if job.market and job.market.bars > 24_000]
    assert len({market.seed for market in markets}) == len(markets) == 240
    assert [sum(market.drift == drift for market in markets) for drift in (0, 1.5)] == [60, 60]


@pytest.fixture(scope="module")
def tallies() -> dict[str, dict[str, list[int]]]:
    sums: dict[str, dict[str, list[int]]] = {}
    for number in range(2):
        for name, windows in judge_border(number, bars=120_000).items():
            for window, (passed, of) in windows.items():
                tally = sums.setdefault(name, {}).setdefault(window, [0, 0])
                tally[0], tally[1] = tally[0] + passed, tally[1] + of
    return sums


def test_forecasters_at_the_border_hardly_ever_pass(tallies: dict[str, dict[str, list[int]]]) -> None:
    """Over all kinds within the simulator together; `make power` shows each with enough windows."""
    within = [tally for name, windows in tallies.items() if name != BEYOND for tally in windows.values()]
    passed, of = (sum(numbers) for numbers in zip(*within, strict=True))
    assert of > 500
    assert passed / of <= ALLOWED


def test_each_forecaster_is_right_in_exactly_the_border() -> None:
    for name, hits in forecasters(60_000, seed=1):
        assert hits.mean() == pytest.approx(TRUE_ACCURACY, abs=3e-3), name


@pytest.mark.parametrize(
    ("accuracy", "is_passed"), [(0.60, False), (0.66, False), (0.72, True)], ids=["below", "barely", "clear"]
)
def test_the_gate_that_is_tried_is_that_of_a_release(accuracy: float, is_passed: bool) -> None:
    hits = np.random.default_rng(0).permutation(np.arange(3_600) < accuracy * 3_600)
    assert border.passes(hits) is is_passed


@pytest.mark.parametrize(
    ("hits", "trials", "lower", "upper"),
    [(0, 60, 0.0, 0.0596), (60, 60, 0.9404, 1.0), (5, 100, 0.0164, 0.1128)],
    ids=["none of 60", "all of 60", "5 of 100"],
)
def test_intervals_are_those_of_clopper_and_pearson(
    hits: int, trials: int, lower: float, upper: float
) -> None:
    assert Share(hits, trials).interval == pytest.approx((lower, upper), abs=1e-4)


@pytest.mark.long
def test_an_interrupted_run_goes_on_where_it_stopped(quick: Path, tmp_path: Path) -> None:
    known = tmp_path / "power.jsonl"
    known.write_text((quick / "power.jsonl").read_text() + '{"kind": "market", "drift": 1.')
    found = Results.read(known)
    assert (len(found.markets), len(found.borders)) == (2, 1), "a line cut off by a crash is no result"
    assert all(job.is_in(found) for job in jobs(is_quick=True))
    assert not Job("market", Market(0.0, 1, bars=6_000, epochs=3)).is_in(found)
    assert not any(job.is_in(found) for job in jobs(is_quick=False))


def test_what_was_not_reached_is_said() -> None:
    found = Results([market(0.0, 0, is_released=True), market(1.5, 0, is_released=False)], [])
    assert len(found.shortfalls()) == 2
    sound = Results([market(0.0, 0, is_released=False), market(1.5, 0, is_released=True)], [])
    assert sound.shortfalls() == []
    passing = {
        "number": 0,
        "bars": 1,
        "tallies": {"any": {"24,000 bars": [6, 100]}, BEYOND: {"24,000 bars": [9, 100]}},
    }
    assert len(Results(sound.markets, [passing]).shortfalls()) == 1
