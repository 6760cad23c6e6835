"""What must be true of the pointer, said a second time: replayed from the audit chain and the figures, past our services.

Every event is read once, in the chain's order, so that a move is held against the policy, the fallback and the required
coins of its very moment, whatever a test did since. Nothing here asks `deploy.rules`, `gates.rules` or a service.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audit.models import AuditEvent
from audit.rules import GENESIS
from deploy.models import PointerMove, Release, ReleaseCoin, ReleaseStatus
from gates.models import Diagnosis, GatePolicy

HOLDS_BOTS = ("inherited", "swap")
MOVES = tuple(f"pointer.{kind}" for kind in (*HOLDS_BOTS, "pin", "offline", "advanced"))
"""The events that a move has; each move is compared with its own."""


@dataclass
class Oracle:
    """The service's history so far. `approvers` are the names of those who may decide."""

    approvers: frozenset[str]
    required: set[str]
    """The symbols of the coins that were required before the first event."""
    seq: int = 0
    hash: str = GENESIS
    policy: int | None = None
    fallback: int | None = None
    epoch: int = 0
    kind: str = ""
    release: int | None = None
    unpinned: str = ""
    """A refusal after which the bots must not stay on what has not passed; settled by the move that follows it."""
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
                self.fallback = int(event.object_id)
            case "coin.required":
                self.required.add(event.object_name)
            case "coin.released":
                self.required.remove(event.object_name)
            case "releasestatus.rejected" | "releasestatus.declined":
                self._refused(event)
            case kind if kind in MOVES:
                self._moved(event, detail, damaged)

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
        move = PointerMove.objects.get(epoch=event.object_id)
        kind = event.kind.removeprefix("pointer.")
        assert (move.audit_seq, move.epoch, move.release_id) == (
            event.seq,
            detail["epoch"],
            detail["release"],
        )
        assert move.previous_id == (self.epoch or None)
        if kind == "advanced":
            assert (move.kind, move.release_id) == (self.kind, self.release) and move.epoch > self.epoch
        else:
            assert (move.kind, move.epoch) == (kind, self.epoch + 1), "an epoch is the next one"
        held = {place.coin.symbol: place.bundle.digest for place in _places(move.release_id)}
        assert detail["bundles"] == held
        match kind:
            case "swap":
                self._passed(move, event.actor, damaged)
            case "pin":
                assert move.release_id == self.fallback, "a pin holds the bots on the registered fallback"
            case "offline":
                assert move.release_id is None
        if kind in ("pin", "offline"):
            self.unpinned = ""
        self.epoch, self.kind, self.release = move.epoch, move.kind, move.release_id
        self.moves[move.epoch] = _frozen(move)

    def _passed(self, move: PointerMove, actor: str, damaged: frozenset[str]) -> None:
        release, policy = move.release, move.policy
        assert release is not None and policy is not None
        assert policy.pk == self.policy, "a swap names the policy in force"
        assert actor in self.approvers and actor != release.launched_by
        assert release.purpose == "candidate" and not self._lacking(release, policy), (
            f"{release} has not passed"
        )
        files = {
            artifact.sha256 for place in _places(release.pk) for artifact in place.bundle.artifacts.all()
        }
        assert not files & damaged, "what was approved is not what was measured"

    def _lacking(self, release: Release, policy: GatePolicy) -> list[str]:
        """The required coins for which this release shows no figures that pass this policy."""
        places = {place.coin.symbol: place for place in _places(release.pk)}
        return [coin for coin in self.required if coin not in places or not _shows(places[coin], policy)]

    def _stands(self) -> None:
        assert {move.epoch: _frozen(move) for move in PointerMove.objects.all()} == self.moves
        live = list(ReleaseStatus.objects.filter(state="live").values_list("release", flat=True))
        assert live == ([self.release] if self.kind in HOLDS_BOTS else []), (
            "one release is live: the pointer's"
        )
        if self.release is not None:
            places = ReleaseCoin.objects.filter(release=self.release)
            assert not places.exclude(dataset__withdrawn_at=None).exists(), "in use on withdrawn candles"


def _places(release: int | None) -> list[Any]:
    rows = ReleaseCoin.objects.filter(release=release, bundle__isnull=False)
    return list(rows.select_related("coin", "bundle").prefetch_related("bundle__artifacts"))


def _frozen(move: PointerMove) -> tuple[Any, ...]:
    return move.kind, move.release_id, move.policy_id, move.moved_by, move.reason, move.audit_seq


def _shows(place: ReleaseCoin, policy: GatePolicy) -> bool:
    """Whether figures of this very bundle on these candles were measured, judged as passed, and do pass."""
    rows = Diagnosis.objects.filter(
        bundle=place.bundle, dataset=place.dataset, policy=policy, verdict="passed"
    )
    return any(
        passes(row.measurement.document, policy.document) for row in rows.select_related("measurement")
    )


def passes(figures: Mapping[str, Any], policy: Mapping[str, Any]) -> bool:
    """The seed's gates, in so many words, for figures without a trap in them."""
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
