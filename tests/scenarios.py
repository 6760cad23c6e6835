"""Releases as they stand in the database, without an hour of training: believable rows, judged by the real gates.

Stories that need real training live in tests/e2e and tests/training; here the rows are what is tested.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts.roles import Actor, Role
from audit import services as audit
from audit.hash_chain import to_canonical_json
from deploy.bots import live_gates
from deploy.bots.heartbeat_checks import Heartbeat
from deploy.models import LiveWindow, PointerMove, Release, ReleaseCoin, ReleaseStatus, SigningKey, Statement
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.settle import advance
from deploy.rules import Purpose, Running
from deploy.serving import protocol, snapshot, statements
from gates.catalogue.live import Tally
from gates.catalogue.registry import GATES
from gates.models import Measurement
from gates.services import policies
from mlcore import confidence_bands
from mlcore.features.indicators import SCHEMAS
from tests import first_day
from training import artifact_store
from training.models import Artifact, Bundle, Coin, Dataset, TrainingRun
from training.rules import JobState, Source
from training.services import runs

LAUNCHER = Actor("olivia", frozenset({Role.VIEWER, Role.OPERATOR}))
APPROVER = Actor("anna", frozenset({Role.VIEWER, Role.APPROVER}))
SECOND_APPROVER = Actor("arthur", frozenset({Role.VIEWER, Role.APPROVER}))
VIEWER = Actor("victor", frozenset({Role.VIEWER}))
COINS = ("BTC", "ETH", "SOL")
ALWAYS_JUDGED = [gate.name for gate in GATES.values() if gate.applies is None]
"""The gates of a diagnosis under the full policy, of a model that was trained once."""


def healthy(coin: str) -> dict[str, Any]:
    """What `mlcore.evaluation.measure` says of a bundle that passes every gate; a little other for each coin."""
    own = {"ETH": -0.015, "SOL": 0.014}.get(coin, 0.0)
    return {
        "format": 1,
        "coin": coin,
        "bundle_digest": "sha256:" + "b" * 64,
        "dataset_digest": "sha256:" + "d" * 64,
        "trained_on": "sha256:" + "d" * 64,
        "bundle": {"digest_matches": True, "loads": True, "shapes_match": True, "problem": None},
        "scaler": {
            "present": True,
            "count": 72,
            "columns": 72,
            "finite_means": True,
            "positive_scales": True,
            "names_equal_schema": True,
            "in_graph": True,
            "problem": None,
        },
        "weights": {"tensors": 26, "non_finite": [], "problem": None},
        "single_sample": {
            "rows": 512,
            "runs": True,
            "largest_difference": 3e-7,
            "largest_excess": -9.7e-6,
            "windows_compared": 512,
            "problem": None,
        },
        "confidence": {
            "shares_over": {"0.50": 0.7, "0.80": 0.1, "0.90": 0.01, "0.95": 0.0, "0.99": 0.0, "0.999": 0.0},
            "mean": 0.61,
            "histogram": {"edges": [0.3, 0.6, 0.9, 1.0], "counts": [900, 590, 10]},
        },
        "shares": {"down": 0.34 - own, "neutral": 0.31 + own, "up": 0.35},
        "logits": {
            "least": -2.9 - own,
            "greatest": 2.4 + own,
            "histogram": {"edges": [-3.0, -1.0, 1.0, 3.0], "counts": [1500, 1500, 1500]},
        },
        "accuracy": {
            "rows": 1500,
            "point": 0.739 + own,
            "lower": 0.721 + own,
            "upper": 0.756 + own,
            "standard_error": 0.009,
            "block_bars": 72,
            "resamples": 2000,
            "majority": 0.35,
            "last_move": 0.40,
        },
        "confusion": [[380, 70, 50], [70, 350, 80], [50, 70, 380]],
        "reliability": [{"confidence": 0.6, "accuracy": 0.7, "rows": 1500}],
        "window": {
            "first_at": "2025-01-01T00:00:00Z",
            "last_at": "2025-03-01T00:00:00Z",
            "rows": 1500,
            "fit_last_at": "2024-12-01T00:00:00Z",
        },
        "skill": _skill(0.739 + own, {"majority": 0.35, "last_move": 0.40, "reversal": 0.21}, v5=0.731 + own),
        "lead": _lead(
            0.739 + own,
            {"majority": 0.35, "last_move": 0.40, "reversal": 0.21, "all_down": 0.39, "all_up": 0.38},
        ),
        "lookahead": {"rows": 256, "columns_differing": [], "largest_difference": 0.0, "problem": None},
        "label": {
            "text": "terciles over 8 bars",
            "input": "relative72",
            "kind": "terciles",
            "horizon_bars": 8,
            "cut": None,
            "cuts": [-0.43, 0.44],
            "shares": [70, 15, 15],
            "problem": None,
        },
        "windows": {
            "horizon_bars": 8,
            "interval_seconds": 3600,
            "fit": _window("2024-02-01", "2024-10-01", 7000, "1"),
            "stop": _window("2024-10-02", "2024-12-30", 1500, "2"),
            "gate": _window("2025-01-01", "2025-03-01", 1500, "3"),
            "on_training_candles": True,
            "recomputed": True,
            "rows_shared": 0,
            "problem": None,
        },
        "schema": {
            "name": "relative72",
            "digest_matches": True,
            "names_match": True,
            "statistics_match": True,
            "columns_out_of_place": [],
            "problem": None,
        },
        "reload": {
            "reported": {"loss": 0.741, "accuracy": 0.736, "rows": 1500, "epoch": 12},
            "recomputed": {"loss": 0.7410002, "accuracy": 0.736, "rows": 1500},
            "largest_difference": 2e-7,
            "cuts_match": True,
            "weights_equal_in_graph": True,
            "problem": None,
        },
        "calibration": {"ece": 0.12, "brier": 0.41, "bins": 15, "rows": 1500, "problem": None},
        "stability": _stability(0.739 + own),
        "latency": {"rows": 512, "p50_ms": 0.09, "p99_ms": 0.21, "problem": None},
        "drift": {
            "recent_rows": 720,
            "fit_rows": 7000,
            "psi": {"returns": 0.04, "rsi_14": 0.11, "atr_14": 0.31, "volatility_50": 0.2},
            "largest": {"name": "atr_14", "psi": 0.31},
            "over": 0.25,
            "problem": None,
        },
        "seconds": 1.2,
        "libraries": {"onnxruntime": "1.31.1"},
        "non_finite": {},
    }


def _skill(accuracy: float, naive: dict[str, float], v5: float) -> dict[str, Any]:
    """Ahead of each by what the accuracies say, give or take 1.5 points."""

    def ahead_of(other: float) -> dict[str, float]:
        ahead = accuracy - other
        return {"accuracy": other, "difference": ahead, "lower": ahead - 0.015, "upper": ahead + 0.015}

    return {
        "rows": 1500,
        "block_bars": 72,
        "resamples": 2000,
        "accuracy": accuracy,
        "naive": {name: ahead_of(other) for name, other in naive.items()},
        "best_naive": max(naive, key=lambda name: naive[name]),
        "baseline": {
            "digest": "sha256:" + "5" * 64,
            "fit": _window("2021-01-01", "2024-06-01", 7_000, "1"),
            "is_itself": False,
            **ahead_of(v5),
            "problem": None,
        },
        "problem": None,
    }


def _lead(accuracy: float, naive: dict[str, float]) -> dict[str, Any]:
    """Ahead of each by what the accuracies say, give or take three points: few blocks have a wide interval."""
    ahead = {name: accuracy - other for name, other in naive.items()}
    rest = (1 - naive["majority"]) / 2
    return {
        "rows": 1500,
        "block_bars": 216,
        "resamples": 2000,
        "accuracy": accuracy,
        "label_shares": {"down": rest, "neutral": rest, "up": naive["majority"]},
        "over": {
            name: {
                "accuracy": naive[name],
                "difference": lead,
                "lower": lead - 0.03,
                "upper": lead + 0.03,
                "standard_error": 0.012,
            }
            for name, lead in ahead.items()
        },
        "problem": None,
    }


def _stability(accuracy: float) -> dict[str, Any]:
    """Two points better in January than in February, one point worse in wild markets."""
    months = {"2025-01": 0.01, "2025-02": -0.01}
    volatility = {"calm": 0.0, "usual": 0.01, "wild": -0.01}
    return {
        "months": [{"month": m, "rows": 750, "accuracy": accuracy + own} for m, own in months.items()],
        "volatility": [{"tercile": t, "rows": 500, "accuracy": accuracy + o} for t, o in volatility.items()],
        "problem": None,
    }


def _window(first: str, last: str, rows: int, digit: str) -> dict[str, Any]:
    ends = {"first_at": f"{first}T00:00:00Z", "last_at": f"{last}T00:00:00Z"}
    return {**ends, "rows": rows, "digest": "sha256:" + digit * 64}


def context_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the service knows of a healthy bundle beyond its measurement: a first attempt, on candles that passed."""

    def passed(digest: str) -> dict[str, Any]:
        return {"digest": digest, "verdict": "passed", "sentence": "Sound.", "simulated": False}

    window = document["window"]
    return {
        "attempts": {
            "count": 1,
            "chain": "0" * 64,
            "window": {at: window[at] for at in ("first_at", "last_at")},
        },
        "import": None,
        "second_run": None,
        "candles": {
            "measured": passed(document["dataset_digest"]),
            "training": passed(document["trained_on"]),
        },
    }


def known(document: dict[str, Any]) -> dict[str, Any]:
    """All that the gates read of it."""
    return {**document, **context_of(document)}


def inaccurate(coin: str) -> dict[str, Any]:
    """As an honest model of real hourly candles measures."""
    document = healthy(coin)
    document["accuracy"] |= {"point": 0.391, "lower": 0.379, "upper": 0.404, "standard_error": 0.0064}
    document["skill"] = _skill(0.391, {"majority": 0.35, "last_move": 0.34, "reversal": 0.33}, v5=0.389)
    document["lead"] = _lead(
        0.391, {"majority": 0.35, "last_move": 0.34, "reversal": 0.33, "all_down": 0.34, "all_up": 0.345}
    )
    document["stability"] = _stability(0.391)
    return document


def collapsed(coin: str) -> dict[str, Any]:
    """As the V6 models measure: certain, always Down, logits in the thousands."""
    document = inaccurate(coin)
    document["scaler"] |= {"present": False, "count": 0, "in_graph": False}
    document["confidence"]["shares_over"] = dict.fromkeys(document["confidence"]["shares_over"], 1.0)
    document["shares"] = {"down": 1.0, "neutral": 0.0, "up": 0.0}
    document["confidence"]["histogram"] = {"edges": [0.3, 0.6, 0.9, 1.0], "counts": [0, 0, 1500]}
    edges = [-12527.0, -3000.0, -600.0, -100.0, -10.0, 10.0, 100.0, 600.0, 3000.0, 9301.0]
    counts = [260, 620, 410, 180, 60, 90, 330, 790, 1760]
    document["logits"] = {
        "least": edges[0],
        "greatest": edges[-1],
        "histogram": {"edges": edges, "counts": counts},
    }
    document["reliability"] = [{"confidence": 1.0, "accuracy": 0.391, "rows": 1500}]
    document["confusion"] = [[587, 0, 0], [456, 0, 0], [457, 0, 0]]
    return document


def coins() -> list[Coin]:
    return [Coin.objects.get_or_create(symbol=symbol)[0] for symbol in COINS]


def dataset(
    coin: Coin,
    *,
    name: str = "a",
    is_simulated: bool = False,
    verdict: str = "passed",
    rows: int = 10_000,
    interval_seconds: int = 3600,
) -> Dataset:
    """A dataset's row, without a stored file."""
    content = f"{coin} {name}{' made up' if is_simulated else ''}"
    content += "" if interval_seconds == 3600 else f" {interval_seconds}"
    digest = "sha256:" + hashlib.sha256(content.encode()).hexdigest()
    found, _ = Dataset.objects.get_or_create(
        coin=coin,
        digest=digest,
        defaults={
            "source": Source.SIMULATED if is_simulated else Source.UPLOAD,
            "origin": f"{coin}.csv.gz",
            "is_simulated": is_simulated,
            "rows": rows,
            "first_at": datetime(2024, 1, 1, tzinfo=UTC),
            "last_at": datetime(2025, 3, 1, tzinfo=UTC),
            "interval_seconds": interval_seconds,
            "size": 480_000,
            "verdict": verdict,
            "check_results": "{}",
            "added_by": "olivia",
        },
    )
    return found


def bundle(coin: Coin, data: Dataset, line: str, *, seed: int, graph: bytes = b"") -> Bundle:
    """A bundle with two small files really stored; without a graph, none that can be run."""
    files_of = {
        "model.onnx": graph or f"graph of {coin} {line} {seed}".encode(),
        "scaler.json": f'{{"coin": "{coin}", "seed": {seed}}}'.encode(),
    }
    entries = {
        name: {"sha256": hashlib.sha256(data_).hexdigest(), "size": len(data_)}
        for name, data_ in files_of.items()
    }
    manifest = to_canonical_json(
        {
            "format": 1,
            "coin": coin.symbol,
            "line": line,
            "seed": seed,
            "classes": ["down", "neutral", "up"],
            "schema": {"name": "relative72", "digest": SCHEMAS["relative72"].digest},
            "dataset_digest": data.digest,
            "interval_seconds": data.interval_seconds,
            "simulated": data.is_simulated,
            "files": entries,
            **(_describe_runnable(data) if graph else {}),
        }
    )
    digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
    made, is_new = Bundle.objects.get_or_create(
        digest=digest,
        defaults={
            "coin": coin,
            "line": line,
            "dataset": data,
            "interval_seconds": data.interval_seconds,
            "manifest": manifest,
            "is_simulated": data.is_simulated,
        },
    )
    if is_new:
        for name, content in {**files_of, "manifest.json": manifest.encode()}.items():
            Artifact.objects.create(
                bundle=made, name=name, sha256=artifact_store.store(content), size=len(content)
            )
    return made


def _describe_runnable(data: Dataset) -> dict[str, Any]:
    """What the manifest states beyond that where a bot loads the bundle."""
    schema = SCHEMAS["relative72"]
    return {
        "labels": {"horizon": 8, "cuts": None},
        "schema": {"name": schema.name, "digest": schema.digest, "lookback": schema.lookback},
        "dataset": data.digest,
        "code_version": "0",
    }


def add_measurement(made: Bundle, data: Dataset, document: dict[str, Any]) -> Measurement:
    """A measurement that succeeded with these figures."""
    subject = {"line": made.line, "bundle_digest": made.digest, "dataset_digest": data.digest}
    document = {**document, **subject, "trained_on": made.dataset.digest if made.dataset else None}
    measurement = Measurement.objects.create(
        bundle=made,
        dataset=data,
        state=JobState.SUCCEEDED,
        attempt=1,
        body=to_canonical_json(document),
        code_version=settings.CODE_VERSION,
        started_at=timezone.now(),
        finished_at=timezone.now(),
    )
    audit.record("measurement.succeeded", measurement, actor="a worker")
    return measurement


@dataclass
class Build:
    """A release being built: which figures each coin will show."""

    line: str = "v7_fixed"
    purpose: Purpose = Purpose.CANDIDATE
    seed: int = 1
    figures: dict[str, Any] = field(default_factory=dict)
    unmeasured: Collection[str] = ()
    """Coins whose bundle has no measurement yet."""
    untrained: Collection[str] = ()
    """Coins that have no bundle yet."""
    is_simulated: bool = False

    def release(self) -> Release:
        """The release with a measured bundle for every coin, not yet settled."""
        datasets = {coin: self.dataset(coin) for coin in coins()}
        release = Release.objects.create(
            interval_seconds=3600,
            line=self.line,
            purpose=self.purpose,
            policy=policies.policy_in_force(),
            seed=self.seed,
            budget=runs.open_budget(runs_expected=3),
            launched_by=LAUNCHER.name,
            deadline_at=timezone.now() + timedelta(hours=3),
        )
        ReleaseStatus.objects.create(release=release)
        for coin, data in datasets.items():
            made = None if coin.symbol in self.untrained else self.bundle(coin, data)
            ReleaseCoin.objects.create(release=release, coin=coin, dataset=data, bundle=made)
            if made is None or coin.symbol in self.unmeasured:
                continue
            figures = self.figures.get(coin.symbol, healthy(coin.symbol))
            add_measurement(made, data, figures)
        return release

    def dataset(self, coin: Coin) -> Dataset:
        return dataset(coin, is_simulated=self.is_simulated)

    def bundle(self, coin: Coin, data: Dataset) -> Bundle:
        return bundle(coin, data, self.line, seed=self.seed)

    def settled(self) -> Release:
        """The same, advanced by the service until it settles."""
        release = self.release()
        advance(release)
        return Release.objects.select_related("status").get(pk=release.pk)


def for_every_coin(figures: Any) -> dict[str, Any]:
    """The same figures for every coin."""
    return {coin: figures(coin) for coin in COINS}


def awaiting_approval(seed: int = 1) -> Release:
    """A candidate that passed every gate for every coin."""
    return Build(seed=seed).settled()


def inherited() -> Release:
    """What the bot ran before: V6, measured and failing, at revision 1."""
    release = Build(
        line="v6_enhanced", purpose=Purpose.INHERITED, figures=for_every_coin(collapsed)
    ).settled()
    decide.inherit(release, actor=APPROVER, reason="as the bot stands today")
    return release


def fallback(seed: int = 5) -> Release:
    """V5, registered as what a pin holds the bots on."""
    release = Build(
        line="v5", purpose=Purpose.FALLBACK, seed=seed, figures=for_every_coin(inaccurate)
    ).settled()
    decide.register_fallback(release, actor=APPROVER, reason="the last line that behaved")
    return release


_first_day: first_day.FirstDay | None = None


def record_first_day() -> None:
    """Before the first test, which may replace parts of the service."""
    global _first_day
    _first_day = first_day.record(build_first_day)


def build_first_day() -> None:
    """v6_enhanced inherited, v5 registered, step by step."""
    fallback()
    inherited()


def service_in_use() -> PointerMove:
    """The service on its first day: v6_enhanced inherited, v5 registered."""
    if _first_day is not None and first_day.is_writable():
        _first_day.write()
    else:
        build_first_day()
    now = pointer.get_current()
    assert now is not None
    return now


def sign_statement(bundle: Bundle) -> Statement:
    """A signed statement about a bundle, as after a second training."""
    run = TrainingRun.objects.create(
        coin=bundle.coin,
        dataset=dataset(bundle.coin),
        line=bundle.line,
        seed=1,
        epochs=1,
        budget=runs.open_budget(),
        launched_by=LAUNCHER.name,
    )
    envelope = {"payload": "e30=", "payloadType": statements.PAYLOAD_TYPE, "signatures": []}
    body = json.dumps(envelope)
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    event = audit.record("bundle.reproduced", bundle, actor="the gate", detail={"statement": sha256})
    return Statement.objects.create(bundle=bundle, run=run, body=body, sha256=sha256, audit_seq=event.seq)


def damage(release: Release, coin: str = "SOL", name: str = "model.onnx") -> None:
    """Change one byte of one stored artifact, behind the service's back."""
    artifact = Artifact.objects.get(
        bundle__release_coins__release=release, bundle__coin__symbol=coin, name=name
    )
    path = default_storage.path(artifact_store.key(artifact.sha256))
    with open(path, "r+b") as file:  # noqa: PTH123 - a byte is changed in place
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def snapshot_document(move: PointerMove) -> dict[str, Any]:
    """The snapshot of a move, as a bot reads it."""
    return json.loads(snapshot.build_snapshot(move).body)


def live_window(
    move: PointerMove, instance: str = "desk-1", coin: str = "BTC", **changes: Any
) -> dict[str, Any]:
    """The body of a live window of a hundred healthy predictions."""
    counts = [0] * 12 + [20, 20, 20, 20, 20] + [0] * 18
    return {
        "instance": instance,
        "revision": move.revision,
        "coin": coin,
        "first_at": "2026-11-22T08:00:00Z",
        "last_at": "2026-11-22T08:00:59Z",
        "predictions": 100,
        "non_finite": 0,
        "class_counts": {"down": 34, "neutral": 31, "up": 35},
        "confidence": {"edges": list(confidence_bands.EDGES), "counts": counts},
        "logits": {"min": -2.9, "max": 2.4},
        "out_of_range": 3,
        **changes,
    }


def posted_window(
    tally: Tally, revision: int, at: datetime, *, instance: str = "desk-1", coin: str = "BTC"
) -> live_gates.PostedWindow:
    """A minute of predictions from `at` on, as the service is told of it."""
    down, neutral, up = tally.classes
    window = LiveWindow(
        first_at=at,
        last_at=at + timedelta(minutes=1),
        predictions=tally.predictions,
        non_finite=tally.non_finite,
        down=down,
        neutral=neutral,
        up=up,
        confidence=list(tally.confidence),
        logit_min=tally.least,
        logit_max=tally.greatest,
        out_of_range=tally.out_of_range if tally.ranged else None,
    )
    return live_gates.PostedWindow(instance, revision, coin, window)


def heartbeat(move: PointerMove, instance: str = "desk-1") -> Heartbeat:
    """The same heartbeat, as the service is told of it."""
    said = heartbeat_fields(move, instance)
    running = Running(said["release"], said["line"], said["bundles"])
    return Heartbeat(
        instance,
        said["client_version"],
        said["service"],
        said["revision"],
        running,
        trusted_keys=tuple(said["trusted_keys"]),
    )


def heartbeat_fields(move: PointerMove, instance: str = "desk-1", **changes: Any) -> dict[str, Any]:
    """The body of a heartbeat of a bot that runs this move's release, the whole of it."""
    document = snapshot_document(move)
    said = {name: document[name] for name in ("service", "revision", "line", "release")}
    bundles = {coin: model["bundle"] for coin, model in document["models"].items()}
    trusted = sorted(SigningKey.objects.exclude(state="retired").values_list("key_id", flat=True))
    return {
        "instance": instance,
        "client_version": "0.1.0",
        "protocol": {"version": protocol.VERSION, "oldest_reader": protocol.VERSION},
        **said,
        "bundles": bundles,
        "trusted_keys": trusted,
        **changes,
    }
