"""Pointer moves while processes are killed and systems fail: no bot decides with a mixture or an unverified file."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import pytest
from django.db import connection  # noqa: F401 - in the conditions of marks
from pytest_django import Settings

from audit import services as audit
from audit.models import AuditEvent
from deploy.models import Bot, PointerMove, ReleaseStatus
from tests import scenarios
from tests.deploy.reference_model import MOVES, ReferenceModel
from tests.e2e.chaos import Chaos, Request, read_own_reason, running_service
from tests.e2e.chaos_faults import OwnPostgreSQL, Sample, Store
from tests.e2e.journal import Began, Decided, Hashed, Journal, hash_all
from tests.processes import REPOSITORY, environment

SEED = 20261122
NUMBER_OF_MOVES = int(os.environ.get("CRPBOT_CHAOS_MOVES", "200"))
"""Fewer are for trying out: the page says how many there were."""
DATABASE_ANSWER_S = 3
PIN_BOUND_S = 15.0
"""The answer of a frozen database is waited for at most a few times. The machine may be busy too."""
MOMENTS_S = 2.0
"""From the switch of a bot to its record on disk, on a busy machine. The switch itself waits for no disk."""
HALF_AN_HOUR_S = 1_800.0
ABOUT = """\
# Pointer moves under faults

Written by `make chaos`: {moves} moves of the pointer on PostgreSQL in {minutes:.0f} minutes, from the seed {seed}. They are
requested over the API of two web processes, while workers train and measure, and while bots on threads and on asyncio
decide all the time. At random moments one process was killed with SIGKILL, and one to three faults began, each for up to
three seconds.

- Compared with the audit chain, no bot ever decided with a bundle that its revision's release does not hold.
- After any change, every file in a bot's folder had the hash that is its name.
- No bot's revision decreased while it ran, and every bot ended on the last revision.
- Every pin was made or refused within {bound:.0f} seconds. What was answered was made once; what was refused was not made.
- A request whose answer was lost was made once too, then or when it was repeated.
- Every release settled. Every swap was to a release that had passed, replayed from the audit chain, which was sound.

A bot changes over before it stores that on disk, so that a slow disk delays no change. A bot that was itself killed in
these moments (within {moments:g} s of the change) started again with the set that it had stored last, until it heard the
service. The column *restarted lower* counts these cases.
"""
HOW = """\
How each fault is made, without root:

- *store slow, cuts answers, hangs*: an S3 behind a TCP proxy that delays each part, resets after half of one, or stops.
- *database frozen*: SIGSTOP to every process of PostgreSQL. *Restarted*: an immediate shutdown and a start, as after a
  crash.
- *Redis frozen*: SIGSTOP. *Emptied*: FLUSHALL.
- *disk full*: the limit RLIMIT_FSIZE of these processes is 0, so that each write to a file fails. In the web processes
  that stops the revision log in the folder of the keys; on SQLite, in the short form of this test, the database too.
- *clock*: `timezone.now` of every process of the service is an hour ahead or behind; bots, database and Redis keep the
  right time.
"""
TARGETS = ("web", "redis", "training", "reconcile", "desk0")


@pytest.fixture
def folder(
    committed: None, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The state folder of these processes, with a Redis of their own, so that killing it affects no other test."""
    with tempfile.TemporaryDirectory(prefix="crpbot-", dir="/tmp") as short:  # sockets have short names
        settings.REDIS_URL = f"unix://{short}/r.sock"
        for name, value in environment(CRPBOT_REDIS_URL=settings.REDIS_URL).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
        monkeypatch.setenv("CRPBOT_TEST_SHARED_CACHE", "1")
        monkeypatch.setenv("CRPBOT_TEST_CLOCK", f"{short}/clock")
        monkeypatch.setenv("CRPBOT_DATABASE_ANSWER_SECONDS", str(DATABASE_ANSWER_S))
        yield Path(short)


@pytest.fixture
def store(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The service's files in an S3 that fails; this process reaches it directly."""
    store = Store(folder / "s3.log")
    settings.STORAGES = {**settings.STORAGES, "default": store.build_options()}
    for name, value in store.build_environment().items():
        monkeypatch.setenv(name, value)
    with store.proxy:
        yield store
    store.stop()


@pytest.mark.processes
@pytest.mark.long
def test_no_bot_runs_a_mixture_whatever_is_killed(folder: Path) -> None:
    with running_service(folder, sets=2, webs=1, bots=1, seed=1, is_small=True) as chaos:
        chaos.run(10, TARGETS, kills=len(TARGETS), faults=6, work_every=10)
        chaos.wait_until_bots_are_on(assert_moves_are_recorded(chaos))
    assert_no_bot_ran_a_mixture(chaos)
    assert_answers_were_in_time(chaos)


@pytest.mark.soak
@pytest.mark.processes
@pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="SQLite is a file, and does not fail by itself"
)
def test_two_hundred_moves_under_faults(
    folder: Path, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = OwnPostgreSQL()
    database.make_durable()
    with running_service(folder, sets=4, webs=2, bots=2, seed=SEED, store=store, database=database) as chaos:
        chaos.run(
            NUMBER_OF_MOVES,
            [*TARGETS, "web2", "gates", "desk1"],
            kills=NUMBER_OF_MOVES // 3,
            faults=NUMBER_OF_MOVES // 2,
            work_every=20,
        )
        chaos.wait_until_all_is_settled()
        chaos.wait_until_bots_are_on(assert_moves_are_recorded(chaos))
    assert_no_bot_ran_a_mixture(chaos)
    assert_answers_were_in_time(chaos)
    (REPOSITORY / "docs" / "chaos.md").write_text(format_report(chaos))


def assert_moves_are_recorded(chaos: Chaos) -> int:
    """Every move is recorded exactly once and named a release that had passed. Returns the last revision."""
    moves = {move.revision: move for move in PointerMove.objects.all()}
    assert sorted(moves) == list(range(1, len(moves) + 1))
    made = Counter(read_own_reason(move.reason) for move in moves.values())
    for move in chaos.users.moves:
        assert made[move.reason] == 1, f"{move} was made {made[move.reason]} times"
        assert move.revision is None or read_own_reason(moves[move.revision].reason) == move.reason
    ReferenceModel(frozenset({"anna"}), required=set(scenarios.COINS)).look()
    assert audit.verify() == []
    assert not Bot.objects.exclude(mismatch="").exists(), "by the heartbeats of the bots"
    assert ReleaseStatus.objects.filter(state="live").count() <= 1
    return max(moves)


def assert_no_bot_ran_a_mixture(chaos: Chaos) -> None:
    releases = load_bundles_by_revision()
    for journal, cache in zip(chaos.journals, chaos.caches, strict=True):
        decisions = journal.decisions()
        mixed = [d for d in decisions if d.bundle and d.bundle != releases[d.revision or 0].get(d.coin)]
        assert mixed == [], "decided by what its revision's release does not hold"
        for life in journal.lives():
            revisions = [d.revision for d in life if d.revision is not None]
            assert revisions == sorted(revisions), "a revision never goes back"
        for before, after in find_restarts_below(journal):
            on_it = before[-1].at - next(d.at for d in before if d.revision == before[-1].revision)
            assert on_it < MOMENTS_S, (
                f"it was on revision {before[-1].revision} for {on_it:.1f} s, and forgot it for {after}"
            )
        assert len({d.revision for d in decisions}) > 1
        first = next(number for number, decision in enumerate(decisions) if decision.bundle)
        assert all(decision.bundle for decision in decisions[first:]), (
            "it begins again with its last good set"
        )
        assert [row.wrong for row in journal.read() if isinstance(row, Hashed) and row.wrong] == []
        files, wrong = hash_all(cache)
        assert files and wrong == []


def assert_answers_were_in_time(chaos: Chaos) -> None:
    """Every pin was made or refused within its bound, and bots never waited longer for their snapshot."""
    late = [request for request in list_requests(chaos, "pin") if request.seconds > PIN_BOUND_S]
    assert late == []
    waited = [sample for sample in chaos.samples if sample.seconds > PIN_BOUND_S]
    assert waited == []


def list_requests(chaos: Chaos, *kinds: str) -> list[Request]:
    return [request for move in chaos.users.moves if move.kind in kinds for request in move.requests]


def find_restarts_below(journal: Journal) -> list[tuple[list[Decided], Decided]]:
    """Restarts of a killed bot at a lower revision than before: with the release it had recorded last."""
    lives = journal.lives()
    return [(old, new[0]) for old, new in pairwise(lives) if (new[0].revision or 0) < (old[-1].revision or 0)]


def load_bundles_by_revision() -> dict[int, Mapping[str, str]]:
    """The bundles of each move, from the audit log."""
    found = {}
    for event in AuditEvent.objects.filter(kind__in=MOVES):
        detail = json.loads(event.body)["detail"]
        found[detail["revision"]] = detail["bundles"]
    return found


def measure_delays(chaos: Chaos) -> list[float]:
    """Seconds from each move to the first decision on it, for every bot that came to decide on it."""
    moved_at = {move.revision: move.moved_at.timestamp() for move in PointerMove.objects.all()}
    found = []
    for journal in chaos.journals:
        seen: set[int] = set()
        for decision in journal.decisions():
            if decision.revision is not None and decision.revision not in seen:
                seen.add(decision.revision)
                found.append(decision.at - moved_at[decision.revision])
    # A move that was made by a clock an hour off says nothing about the delay.
    return sorted(seconds for seconds in found if abs(seconds) < HALF_AN_HOUR_S)


def format_report(chaos: Chaos) -> str:
    """The results of the long run as a page of the documentation."""
    moves = chaos.users.moves
    lost, refused = sum(m.lost for m in moves), sum(m.refused for m in moves)
    return "\n".join(
        [
            ABOUT.format(
                moves=len(moves),
                minutes=chaos.seconds / 60,
                moments=MOMENTS_S,
                bound=PIN_BOUND_S,
                seed=SEED,
            ),
            HOW,
            *_table(("fault", "times"), sorted(chaos.injector.counts.items())),
            *_table(("faults at a time", "times"), sorted(chaos.injector.together.items())),
            *_table(("killed", "times"), sorted(chaos.kills.items())),
            *_table(("moves", "times"), sorted(Counter(move.kind for move in moves).items())),
            f"Without an answer {lost} requests, because a process was killed or stopped; refused {refused}.",
            "",
            *_format_pins(list_requests(chaos, "pin")),
            *_format_samples(chaos.samples),
            *_table(
                (
                    "bot",
                    "starts",
                    "decisions",
                    "without a model",
                    "stale",
                    "revisions",
                    "files hashed",
                    "restarted lower",
                ),
                [_format_bot(journal) for journal in chaos.journals],
            ),
            _format_delays(measure_delays(chaos)),
            "",
        ]
    )


def _format_pins(requests: Sequence[Request]) -> list[str]:
    """The answers to pins, by the faults that lasted meanwhile."""
    rows: list[tuple[object, ...]] = []
    names = sorted({name for request in requests for name in request.faults})
    for name in ("none", *names, "all"):
        chosen = [
            r for r in requests if name == "all" or name in r.faults or (name == "none" and not r.faults)
        ]
        seconds = sorted(request.seconds for request in chosen)
        if seconds:
            statuses = Counter(str(request.status or "no answer") for request in chosen)
            answered = ", ".join(f"{number} × {status}" for status, number in sorted(statuses.items()))
            rows.append((name, answered, f"{median(seconds):.2f} s", f"{seconds[-1]:.1f} s"))
    return [
        "Requests for a pin:",
        "",
        *_table(("fault meanwhile", "answers", "half within", "all within"), rows),
    ]


def _format_samples(samples: Sequence[Sample]) -> list[str]:
    """What one more bot got when it asked for the signed snapshot."""
    rows: list[tuple[object, ...]] = []
    for name in ("none", *sorted({name for sample in samples for name in sample.faults})):
        chosen = [s for s in samples if name in s.faults or (name == "none" and not s.faults)]
        seconds = sorted(sample.seconds for sample in chosen)
        if seconds:
            good = sum(sample.status == 200 for sample in chosen)
            rows.append(
                (
                    name,
                    len(chosen),
                    f"{good / len(chosen):.0%}",
                    f"{median(seconds):.2f} s",
                    f"{seconds[-1]:.1f} s",
                )
            )
    head = ("fault meanwhile", "requests", "answered 200", "half within", "all within")
    return ["Requests for the signed snapshot, kills included:", "", *_table(head, rows)]


def _format_bot(journal: Journal) -> tuple[object, ...]:
    decisions = journal.decisions()
    hashed = sum(row.files for row in journal.read() if isinstance(row, Hashed))
    return (
        journal.path.name.removeprefix("journal-"),
        sum(isinstance(row, Began) for row in journal.read()),
        f"{len(decisions):,}",
        sum(d.bundle is None for d in decisions),
        f"{sum(d.is_stale for d in decisions):,}",
        len({d.revision for d in decisions if d.revision is not None}),
        f"{hashed:,}",
        len(find_restarts_below(journal)),
    )


def _format_delays(seconds: list[float]) -> str:
    cuts = quantiles(seconds, n=100)
    return (
        f"From a move to the first decision on it, kills and restarts included: half within {cuts[49]:.2f} s, 90 % within"
        f" {cuts[89]:.1f} s, all within {seconds[-1]:.1f} s."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]
