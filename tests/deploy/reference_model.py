"""What must be true of the pointer, said a second time: replayed from the audit chain and the figures, past our services.

Every event is read once, in the chain's order, so that a move is held against the policy, the fallback and the required
coins of its very moment, whatever a test did since. Nothing here asks `deploy.rules`, `gates.policy` or a service.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from audit.hash_chain import GENESIS
from audit.models import AuditEvent
from deploy.models import PointerMove, Release, ReleaseCoin, ReleaseStatus
from gates.models import Diagnosis, GatePolicy

MACHINES = ("the gate", "the live gates")
"""They pin without being asked; nothing else is theirs to decide."""
JOBS = ("trainingrun", "measurement")
HOLDS_BOTS = ("inherited", "swap")
MOVES = tuple(f"pointer.{kind}" for kind in (*HOLDS_BOTS, "pin", "offline", "advanced"))
"""The events that a move has; each move is compared with its own."""


@dataclass
class ReferenceModel:
    """The service's history so far. `approvers` are the names of those who may decide."""

    approvers: frozenset[str]
    required: set[str]
    """The symbols of the coins that were required before the first event."""
    lease: timedelta = timedelta()
    """For how long at least a job is its worker's, whichever other worker gets its message. 0 where clocks are shifted."""
    seq: int = 0
    hash: str = GENESIS
    policy: int | None = None
    fallback: int | None = None
    revision: int = 0
    kind: str = ""
    release: int | None = None
    unpinned: str = ""
    """A refusal after which the bots must not stay on what has not passed; settled by the move that follows it."""
    held: dict[tuple[str, str], tuple[int, str, datetime]] = field(default_factory=dict)
    """By job, the attempt, the worker and the moment of its last claim."""
    moves: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    """How many events there were of each kind."""

    def look(self, damaged: frozenset[str] = frozenset()) -> bool:
        """Read what happened since, and compare it with what stands; whether anything did. `damaged` are stored files."""
        found = list(AuditEvent.objects.filter(seq__gt=self.seq).order_by("seq"))
        for event in found:
            self._follows(event)
            self._take(event, json.loads(event.body)["detail"], damaged)
        assert not self.unpinned, f"the bots were left on what has not passed, after {self.unpinned}"
        self._stands()
        return bool(found)

    def _follows(self, event: AuditEvent) -> None:
        assert event.seq == self.seq + 1 and event.previous_hash == self.hash, f"{event} breaks the chain"
        assert event.hash == hashlib.sha256(f"{self.hash}\n{event.body}".encode()).hexdigest(), event
        self.seq, self.hash = event.seq, event.hash

    def _take(self, event: AuditEvent, detail: Mapping[str, Any], damaged: frozenset[str]) -> None:
        self.seen[event.kind] += 1
        match event.kind:
            case "gatepolicy.adopted":
                assert event.actor != detail["proposed_by"] or self.policy is None, "two people decide"
                self.policy = int(event.object_id)
            case "fallback.registered":
                self._registered(event, damaged)
            case "coin.required":
                self.required.add(event.object_name)
            case "coin.released":
                self.required.remove(event.object_name)
            case "releasestatus.rejected" | "releasestatus.declined":
                assert event.actor in (self.approvers if event.kind.endswith("declined") else MACHINES)
                self._refused(event)
            case kind if event.object_type in JOBS:
                self._worked(event, kind.partition(".")[2], detail)
            case kind if kind in MOVES:
                self._moved(event, detail, damaged)

    def _worked(self, event: AuditEvent, to: str, detail: Mapping[str, Any]) -> None:
        """A message may come twice, and a worker back from the dead: one of them holds the job, and one end counts."""
        job = event.object_type, event.object_id
        attempt, worker, at = self.held.get(job, (0, event.actor, event.at - self.lease))
        if to == "running":
            assert detail["attempt"] == attempt + 1, f"{event} has attempt {attempt} of {worker}"
            assert not self.lease or event.at - at >= self.lease, (
                f"{event} has {worker}, who claimed it at {at}"
            )
            self.held[job] = attempt + 1, event.actor, event.at
        elif to in ("succeeded", "failed"):
            assert event.actor == worker, f"{event} is another worker's by now"

    def _registered(self, event: AuditEvent, damaged: frozenset[str]) -> None:
        release = Release.objects.get(pk=event.object_id)
        assert release.purpose == "fallback" and not _files(release.pk) & damaged
        assert event.actor in self.approvers and event.actor != release.launched_by, "two people decide"
        self.fallback = release.pk

    def _refused(self, event: AuditEvent) -> None:
        """Rule 4: only what has itself passed may stay in use."""
        release = Release.objects.get(pk=event.object_id)
        if release.purpose != "candidate" or self.kind not in HOLDS_BOTS:
            return
        assert self.release is not None
        in_use = Release.objects.get(pk=self.release)
        if self.kind == "inherited" or self._lacking(in_use, in_use.policy):
            self.unpinned = str(event)

    def _moved(self, event: AuditEvent, detail: Mapping[str, Any], damaged: frozenset[str]) -> None:
        move = PointerMove.objects.filter(revision=event.object_id).first()
        assert move is not None, f"{event} tells of a move that was not made"
        kind = event.kind.removeprefix("pointer.")
        assert (move.audit_seq, move.revision, move.release_id) == (
            event.seq,
            detail["revision"],
            detail["release"],
        )
        assert move.previous_id == (self.revision or None)
        if kind == "advanced":
            assert (move.kind, move.release_id) == (self.kind, self.release) and move.revision > self.revision
        else:
            assert (move.kind, move.revision) == (kind, self.revision + 1), "a revision is the next one"
        held = {
            release_coin.coin.symbol: release_coin.bundle.digest
            for release_coin in _list_release_coins(move.release_id)
        }
        assert detail["bundles"] == held
        match kind:
            case "swap":
                self._passed(move, event.actor, damaged)
            case "pin":
                assert move.release_id == self.fallback, "a pin holds the bots on the registered fallback"
                assert not _files(self.fallback) & damaged, "the bots are pinned on what they cannot load"
            case "offline":
                assert move.release_id is None
        assert event.actor in (*self.approvers, *(MACHINES if kind in ("pin", "offline") else ()))
        if kind in ("pin", "offline"):
            self.unpinned = ""
        self.revision, self.kind, self.release = move.revision, move.kind, move.release_id
        self.moves[move.revision] = _frozen(move)

    def _passed(self, move: PointerMove, actor: str, damaged: frozenset[str]) -> None:
        release, policy = move.release, move.policy
        assert release is not None and policy is not None
        assert policy.pk == self.policy, "a swap names the policy in force"
        assert actor in self.approvers and actor != release.launched_by, "two people decide"
        assert release.purpose == "candidate" and not self._lacking(release, policy), (
            f"{release} has not passed"
        )
        assert not _files(release.pk) & damaged, "what was approved is not what was measured"

    def _lacking(self, release: Release, policy: GatePolicy) -> list[str]:
        """The required coins for which this release shows no figures that pass this policy."""
        release_coins = {
            release_coin.coin.symbol: release_coin for release_coin in _list_release_coins(release.pk)
        }
        return [
            coin
            for coin in self.required
            if coin not in release_coins or not _shows(release_coins[coin], policy)
        ]

    def _stands(self) -> None:
        assert {move.revision: _frozen(move) for move in PointerMove.objects.all()} == self.moves
        live = list(ReleaseStatus.objects.filter(state="live").values_list("release", flat=True))
        assert live == ([self.release] if self.kind in HOLDS_BOTS else []), (
            "one release is live: the pointer's"
        )
        if self.release is not None:
            release_coins = ReleaseCoin.objects.filter(release=self.release)
            withdrawn = release_coins.exclude(dataset__withdrawn_at=None) | release_coins.exclude(
                bundle__dataset=None
            ).exclude(bundle__dataset__withdrawn_at=None)
            assert not withdrawn.exists(), "in use on withdrawn candles"


def _list_release_coins(release: int | None) -> list[Any]:
    rows = ReleaseCoin.objects.filter(release=release, bundle__isnull=False)
    return list(rows.select_related("coin", "bundle").prefetch_related("bundle__artifacts"))


def _files(release: int | None) -> set[str]:
    return {
        artifact.sha256
        for release_coin in _list_release_coins(release)
        for artifact in release_coin.bundle.artifacts.all()
    }


def _frozen(move: PointerMove) -> tuple[Any, ...]:
    return move.kind, move.release_id, move.policy_id, move.moved_by, move.reason, move.audit_seq


def _shows(release_coin: ReleaseCoin, policy: GatePolicy) -> bool:
    """Whether figures of this very bundle on these candles were measured, judged as passed, and do pass."""
    rows = Diagnosis.objects.filter(
        bundle=release_coin.bundle, dataset=release_coin.dataset, policy=policy, verdict="passed"
    )
    return any(
        passes(row.measurement.document, policy.document) for row in rows.select_related("measurement")
    )


def passes(figures: Mapping[str, Any], policy: Mapping[str, Any]) -> bool:
    """The baseline gates, in so many words, for figures without a trap in them."""
    return bool(
        figures
        and figures["bundle"]["digest_matches"]
        and figures["scaler"]["in_graph"]
        and not figures["weights"]["non_finite"]
        and figures["single_sample"]["largest_excess"] <= 0
        and figures["confidence"]["shares_over"]["0.90"] < 0.80
        and all(0.20 <= share <= 0.40 for share in figures["shares"].values())
        and -10 <= figures["logits"]["least"] <= figures["logits"]["greatest"] <= 10
        and figures["accuracy"]["lower"] > policy["gates"]["accuracy"]["above"]
    )
