"""The snapshot: which models a bot must run and why, as one document."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.utils import timezone

from common.errors import Unavailable
from deploy.models import PointerMove, ReleaseCoin, ServiceIdentity, Statement
from deploy.outcomes import list_release_coins
from deploy.pointer import pointer
from deploy.serving import protocol
from gates.policy_changes import weaker_than_baseline

NO_POINTER = "There is no pointer yet. An approver must inherit the release the bot runs today."


@dataclass(frozen=True)
class Snapshot:
    """One revision, ready to send: its document, or the signed envelope around it."""

    revision: int
    body: bytes
    expires_at: datetime | None = None
    """The end of a signed envelope's validity, which its body states too."""

    @property
    def is_valid(self) -> bool:
        """Whether it may be served without a look at the database: a bot will not use it once it has expired."""
        return self.expires_at is not None and timezone.now() < self.expires_at

    @cached_property
    def etag(self) -> str:
        """The digest of the body."""
        return f'"{hashlib.sha256(self.body).hexdigest()}"'


def build_current(known: Snapshot | None = None) -> Snapshot:
    """The document of the last move; `known` where that is the one. Raises Unavailable before the first move."""
    move = pointer.get_current()
    if move is None:
        raise Unavailable(NO_POINTER)
    return known if known is not None and known.revision == move.revision else build_snapshot(move)


def build_snapshot(move: PointerMove) -> Snapshot:
    return Snapshot(move.revision, to_json(build_document(move)))


def to_json(document: dict[str, Any]) -> bytes:
    """The same bytes for the same document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def build_document(
    move: PointerMove, release_coins: Sequence[ReleaseCoin] | None = None, *, service: str = ""
) -> dict[str, Any]:
    """The snapshot as a document; the same move gives the same document, byte for byte.

    `release_coins` are those of the move's release, `service` the name of this service, if they were read already.
    """
    release = move.release
    if release_coins is None:
        release_coins = list_release_coins(release) if release else []
    release_coins = [release_coin for release_coin in release_coins if release_coin.bundle]
    models = {release_coin.coin.symbol: describe_model(release_coin) for release_coin in release_coins}
    signed = _describe_statements(move, [model["bundle"] for model in models.values()])
    for model in models.values():
        model["statement"] = signed.get(model["bundle"])
    if (event := move.audit_event) is None:
        raise Unavailable(
            f"The audit chain does not hold event {move.audit_seq} of revision {move.revision}."
        )
    return {
        "protocol": protocol.describe(),
        "service": service or get_service_name(),
        "revision": move.revision,
        "kind": move.kind,
        "line": release.line if release else None,
        "release": release.pk if release else None,
        "interval_seconds": release.interval_seconds if release else None,
        "moved_at": move.moved_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "moved_by": move.moved_by,
        "reason": move.reason,
        "simulated": any(model["simulated"] for model in models.values()),
        "policy": _describe_policy(move),
        "audit": {"seq": event.seq, "hash": event.hash},
        "models": models,
    }


def get_service_name() -> str:
    """The name by which a bot tells this service's revisions from another's."""
    return ServiceIdentity.get_name()


def _describe_policy(move: PointerMove) -> dict[str, Any] | None:
    if move.policy is None:
        return None
    weaker = weaker_than_baseline(move.policy.document)
    return {"number": move.policy.number, "weaker_than_baseline": weaker}


def _describe_statements(move: PointerMove, digests: Iterable[str]) -> dict[str, dict[str, str]]:
    """By the bundle's digest: digest and address of the statements signed before the move, which never change."""
    rows = Statement.objects.filter(bundle__digest__in=digests, audit_seq__lt=move.audit_seq)
    return {
        digest: {"sha256": sha256, "url": f"/api/v1/bundles/{digest}/statement/"}
        for digest, sha256 in rows.values_list("bundle__digest", "sha256")
    }


def describe_model(release_coin: ReleaseCoin) -> dict[str, Any]:
    """One coin's bundle, as announced: its digest, and digest, size and address of each file."""
    bundle = release_coin.bundle
    assert bundle is not None
    manifest = json.loads(bundle.manifest)
    return {
        "bundle": bundle.digest,
        "simulated": bundle.is_simulated,
        "feature_schema": manifest["schema"]["name"],
        "schema_digest": manifest["schema"]["digest"],
        "classes": manifest["classes"],
        "files": {
            artifact.name: {
                "sha256": artifact.sha256,
                "size": artifact.size,
                "url": f"/api/v1/artifacts/{artifact.sha256}",
            }
            for artifact in bundle.artifacts.all()
        },
    }
