"""Releases as they stand in the database, without an hour of training: believable rows, judged by the real gates.

Stories that need real training live in tests/e2e and tests/training; here the rows are what is tested.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts.rules import Actor, Role
from audit.rules import canonical
from deploy import pointer, services, snapshot
from deploy.models import PointerMove, Release, ReleaseCoin, ReleaseStatus
from deploy.rules import Purpose
from gates import services as gates
from gates.models import Measurement
from training import files
from training import services as training
from mlcore.features import SCHEMAS
from training.models import Artifact, Bundle, Coin, Dataset
from training.rules import JobState, Source

LAUNCHER = Actor("olivia", frozenset({Role.VIEWER, Role.OPERATOR}))
APPROVER = Actor("anna", frozenset({Role.VIEWER, Role.APPROVER}))
SECOND_APPROVER = Actor("arthur", frozenset({Role.VIEWER, Role.APPROVER}))
VIEWER = Actor("victor", frozenset({Role.VIEWER}))
COINS = ("BTC", "ETH", "SOL")


def healthy(coin: str) -> dict[str, Any]:
    """What `mlcore.measure` says of a bundle that passes every gate of the seed; a little other for each coin."""
    own = {"ETH": -0.015, "SOL": 0.014}.get(coin, 0.0)
    return {
        "format": 1,
        "coin": coin,
        "bundle": {"digest_matches": True, "loads": True, "shapes_match": True, "problem": None},
        "scaler": {
            "present": True,
            "count": 72,
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
        "seconds": 1.2,
        "libraries": {"onnxruntime": "1.31.1"},
        "non_finite": {},
    }


def inaccurate(coin: str) -> dict[str, Any]:
    """As an honest model of real hourly candles measures."""
    document = healthy(coin)
    document["accuracy"] |= {"point": 0.391, "lower": 0.379, "upper": 0.404}
    return document


def collapsed(coin: str) -> dict[str, Any]:
    """As the V6 models measure: certain, always Down, logits in the thousands."""
    document = inaccurate(coin)
    document["scaler"] |= {"present": False, "count": 0, "in_graph": False}
    document["confidence"]["shares_over"] = dict.fromkeys(document["confidence"]["shares_over"], 1.0)
    document["shares"] = {"down": 1.0, "neutral": 0.0, "up": 0.0}
    document["logits"] |= {"least": -12527.0, "greatest": 9301.0}
    return document


def coins() -> list[Coin]:
    return [Coin.objects.get_or_create(symbol=symbol)[0] for symbol in COINS]


def dataset(coin: Coin, *, name: str = "a", is_simulated: bool = False) -> Dataset:
    """A dataset's row, without a stored file."""
    digest = "sha256:" + hashlib.sha256(f"{coin} {name}".encode()).hexdigest()
    found, _ = Dataset.objects.get_or_create(
        coin=coin,
        digest=digest,
        defaults={
            "source": Source.SIMULATED if is_simulated else Source.UPLOAD,
            "origin": f"{coin}.csv.gz",
            "is_simulated": is_simulated,
            "rows": 10_000,
            "first_at": datetime(2024, 1, 1, tzinfo=UTC),
            "last_at": datetime(2025, 3, 1, tzinfo=UTC),
            "interval_seconds": 3600,
            "size": 480_000,
            "added_by": "olivia",
        },
    )
    return found


def bundle(coin: Coin, data: Dataset, line: str, *, seed: int) -> Bundle:
    """A bundle with two small files really stored."""
    files_of = {
        "model.onnx": f"graph of {coin} {line} {seed}".encode(),
        "scaler.json": f'{{"coin": "{coin}", "seed": {seed}}}'.encode(),
    }
    entries = {
        name: {"sha256": hashlib.sha256(data_).hexdigest(), "size": len(data_)}
        for name, data_ in files_of.items()
    }
    manifest = canonical(
        {
            "format": 1,
            "coin": coin.symbol,
            "line": line,
            "seed": seed,
            "classes": ["down", "neutral", "up"],
            "schema": {"name": "relative72", "digest": SCHEMAS["relative72"].digest},
            "dataset_digest": data.digest,
            "simulated": data.is_simulated,
            "files": entries,
        }
    )
    digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
    made, is_new = Bundle.objects.get_or_create(
        digest=digest,
        defaults={
            "coin": coin,
            "line": line,
            "dataset": data,
            "manifest": manifest,
            "is_simulated": data.is_simulated,
        },
    )
    if is_new:
        for name, content in {**files_of, "manifest.json": manifest.encode()}.items():
            Artifact.objects.create(bundle=made, name=name, sha256=files.store(content), size=len(content))
    return made


def measured(made: Bundle, data: Dataset, document: dict[str, Any]) -> Measurement:
    """A measurement that succeeded with these figures."""
    document = {**document, "line": made.line, "bundle_digest": made.digest, "dataset_digest": data.digest}
    return Measurement.objects.create(
        bundle=made,
        dataset=data,
        state=JobState.SUCCEEDED,
        attempt=1,
        body=canonical(document),
        started_at=timezone.now(),
        finished_at=timezone.now(),
    )


@dataclass
class Build:
    """A release being built: which figures each coin will show."""

    line: str = "v7_fixed"
    purpose: Purpose = Purpose.CANDIDATE
    seed: int = 1
    figures: dict[str, Any] = field(default_factory=dict)
    is_simulated: bool = False

    def release(self) -> Release:
        """The release with a measured bundle for every coin, not yet settled."""
        places = {coin: dataset(coin, is_simulated=self.is_simulated) for coin in coins()}
        release = Release.objects.create(
            line=self.line,
            purpose=self.purpose,
            policy=gates.policy_in_force(),
            seed=self.seed,
            budget=training.open_budget(runs_expected=3),
            launched_by=LAUNCHER.name,
            deadline_at=timezone.now() + timedelta(hours=3),
        )
        ReleaseStatus.objects.create(release=release)
        for coin, data in places.items():
            made = bundle(coin, data, self.line, seed=self.seed)
            measured(made, data, self.figures.get(coin.symbol, healthy(coin.symbol)))
            ReleaseCoin.objects.create(release=release, coin=coin, dataset=data, bundle=made)
        return release

    def settled(self) -> Release:
        """The same, advanced by the service until it settles."""
        release = self.release()
        services.advance(release)
        return Release.objects.select_related("status").get(pk=release.pk)


def everywhere(figures: Any) -> dict[str, Any]:
    """The same figures for every coin."""
    return {coin: figures(coin) for coin in COINS}


def awaiting_approval(seed: int = 1) -> Release:
    """A candidate that passed every gate for every coin."""
    return Build(seed=seed).settled()


def inherited() -> Release:
    """What the bot ran before: V6, measured and failing, at epoch 1."""
    release = Build(line="v6_enhanced", purpose=Purpose.INHERITED, figures=everywhere(collapsed)).settled()
    services.inherit(release, actor=APPROVER, reason="as the bot stands today")
    return release


def fallback(seed: int = 5) -> Release:
    """V5, registered as what a pin holds the bots on."""
    release = Build(line="v5", purpose=Purpose.FALLBACK, seed=seed, figures=everywhere(inaccurate)).settled()
    services.register_fallback(release, actor=APPROVER, reason="the last line that behaved")
    return release


def service_in_use() -> PointerMove:
    """The service on its first day: v6_enhanced inherited, v5 registered."""
    fallback()
    inherited()
    now = pointer.current()
    assert now is not None
    return now


def damage(release: Release, coin: str = "SOL", name: str = "model.onnx") -> None:
    """Change one byte of one stored artifact, behind the service's back."""
    artifact = Artifact.objects.get(
        bundle__release_coins__release=release, bundle__coin__symbol=coin, name=name
    )
    path = default_storage.path(files.key(artifact.sha256))
    with open(path, "r+b") as file:  # noqa: PTH123 - a byte is changed in place
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def document_of(move: PointerMove) -> dict[str, Any]:
    """The snapshot of a move, as a bot reads it."""
    return json.loads(snapshot.of(move).body)
        code_version=settings.CODE_VERSION,
