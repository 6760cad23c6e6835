"""What the audit chain says of accounts, policies, diagnoses, releases, moves and statements, compared with their tables.

The guards refuse most forgeries, but the owner of the database can take them away. An event that this service wrote cannot
be forged without its secret key, so a row that differs from its events was changed behind the service's back.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from accounts.models import ApiToken, RoleGrant, User
from audit.models import AuditEvent
from deploy.models import (
    FallbackRegistration,
    PointerMove,
    Release,
    ReleaseCoin,
    ReleaseStatus,
    SigningKey,
    Statement,
)
from deploy.rules import KeyState, MoveKind, ReleaseState
from gates.models import Diagnosis, GatePolicy, GateResult, PolicyAdoption
from mlcore.verdict import Verdict
from training.models import Coin

Facts = dict[str, dict[str, Any]]
"""By the name of an object, what is known of it."""

_MOVES = {f"pointer.{kind}" for kind in MoveKind} | {"pointer.advanced"}
_STATES = {f"releasestatus.{state}" for state in ReleaseState}
_KEY_STATES = {f"signingkey.{state}" for state in KeyState}
_VERDICTS = {f"diagnosis.{verdict}" for verdict in Verdict}


class Replay:
    """One comparison: the tables as they were at the audit head, and the events that lead there.

    Create it in the transaction that reads the head; then pass every authentic event to `follow`, in order.
    """

    def __init__(self) -> None:
        self._stored = _read_tables()
        self._expected: Facts = defaultdict(dict)
        self._adoptions: list[tuple[str, str]] = []
        self._registrations: list[tuple[str, str]] = []

    def follow(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        for is_about, act in _EVENTS:
            if event.kind in is_about:
                act(self, event, detail)
                return

    def find_differences(self) -> Iterator[str]:
        """A sentence for each object that differs from its events, or has none."""
        expected = {**self._expected, "policy adoptions": {"order": self._adoptions}}
        expected["fallback registrations"] = {"order": self._registrations}
        for name in sorted(expected.keys() | self._stored.keys()):
            stored, facts = self._stored.get(name), expected.get(name)
            if facts is None:
                yield f"{name} has no event in the audit chain"
            elif stored is None:
                yield f"{name} is in the audit chain, and not in its table"
            elif names := sorted(key for key in facts.keys() & stored.keys() if facts[key] != stored[key]):
                yield f"{name} differs from the audit chain: {', '.join(names)}"

    def _create_user(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts: dict[str, Any] = {
            "name": event.object_name,
            "active": True,
            "staff": detail.get("is_staff"),
            "service": detail.get("is_service"),
            "counts as": None,
            "superuser": False,
            "roles": set(),
        }
        self._expected[f"user {event.object_id}"] = facts

    def _close_user(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"user {event.object_id}"]["active"] = False

    def _link_user(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"user {event.object_id}"]["counts as"] = detail.get("counts_as")

    def _grant(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        roles = self._expected[f"user {event.object_id}"].setdefault("roles", set())
        (roles.add if event.kind == "role.granted" else roles.discard)(detail.get("role"))

    def _issue(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts = {key: detail.get(key) for key in ("scope", "user", "expires_at", "digest")}
        self._expected[f"token {event.object_id}"] = {**facts, "revoked": False}

    def _revoke(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"token {event.object_id}"]["revoked"] = True

    def _propose(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts = {"number": event.object_name, "body": detail.get("body"), "proposed by": event.actor}
        self._expected[f"policy row {event.object_id}"] = facts

    def _adopt(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._adoptions.append((event.object_id, event.actor))

    def _diagnose(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        verdict = event.kind.removeprefix("diagnosis.")
        facts = {"verdict": verdict, "digest": detail.get("digest"), "gates": detail.get("gates")}
        self._expected[f"diagnosis {event.object_id}"] = facts

    def _launch(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts = {key: detail.get(key) for key in ("line", "purpose", "interval_seconds", "seed")}
        facts |= {"launched by": event.actor, "state": str(ReleaseState.BUILDING)}
        self._expected[f"release {event.object_id}"] = facts

    def _change_state(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"release {event.object_id}"]["state"] = detail.get("to")

    def _register(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._registrations.append((event.object_id, event.actor))

    def _move(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"revision {event.object_id}"] = {
            "event": event.seq,
            "kind": event.kind,
            "release": detail.get("release"),
            "policy": detail.get("policy"),
            "bundles": detail.get("bundles"),
            "moved by": event.actor,
            "reason": event.reason,
        }

    def _reproduce(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts = {"event": event.seq, "body": detail.get("statement")}
        self._expected[f"statement about bundle {event.object_id}"] = facts

    def _require_coin(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"coin {event.object_id}"] = {"required": event.kind == "coin.required"}

    def _create_key(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        facts = {
            "key": detail.get("key_id"),
            "public half": detail.get("public"),
            "state": str(KeyState.NEXT),
        }
        self._expected[f"signing key {event.object_id}"] = facts

    def _change_key(self, event: AuditEvent, detail: Mapping[str, Any]) -> None:
        self._expected[f"signing key {event.object_id}"]["state"] = detail.get("to")


_EVENTS: list[tuple[set[str], Callable[[Replay, AuditEvent, Mapping[str, Any]], None]]] = [
    ({"user.created"}, Replay._create_user),
    ({"user.closed"}, Replay._close_user),
    ({"user.linked"}, Replay._link_user),
    ({"role.granted", "role.withdrawn"}, Replay._grant),
    ({"token.issued"}, Replay._issue),
    ({"token.revoked"}, Replay._revoke),
    ({"gatepolicy.proposed"}, Replay._propose),
    ({"gatepolicy.adopted"}, Replay._adopt),
    (_VERDICTS, Replay._diagnose),
    ({"release.launched"}, Replay._launch),
    (_STATES, Replay._change_state),
    ({"fallback.registered"}, Replay._register),
    (_MOVES, Replay._move),
    ({Statement.EVENT}, Replay._reproduce),
    ({"coin.required", "coin.released"}, Replay._require_coin),
    ({"signingkey.created"}, Replay._create_key),
    (_KEY_STATES, Replay._change_key),
]


def _read_tables() -> Facts:
    stored: Facts = {}
    for read in (
        _read_accounts,
        _read_policies,
        _read_diagnoses,
        _read_releases,
        _read_moves,
        _read_statements,
        _read_keys_and_coins,
    ):
        stored |= read()
    return stored


def _read_accounts() -> Facts:
    roles = defaultdict[int, set[str]](set)
    for user, role in RoleGrant.objects.values_list("user_id", "role"):
        roles[user].add(role)
    columns = ("pk", "username", "is_active", "is_staff", "is_superuser", "is_service", "counts_as")
    users = {
        f"user {pk}": {
            "name": name,
            "active": active,
            "staff": staff,
            "superuser": superuser,
            "service": service,
            "counts as": counts_as,
            "roles": roles[pk],
        }
        for pk, name, active, staff, superuser, service, counts_as in User.objects.values_list(*columns)
    }
    rows = ApiToken.objects.order_by().values(
        "pk", "scope", "user__username", "expires_at", "digest", "revoked_at"
    )
    return users | {
        f"token {row['pk']}": {
            "scope": row["scope"],
            "user": row["user__username"],
            "expires_at": row["expires_at"].isoformat() if row["expires_at"] else None,
            "digest": row["digest"],
            "revoked": row["revoked_at"] is not None,
        }
        for row in rows
    }


def _read_policies() -> Facts:
    adoptions = PolicyAdoption.objects.order_by("pk").values_list("policy_id", "adopted_by")
    policies = GatePolicy.objects.order_by()
    return {
        f"policy row {policy.pk}": {
            "number": str(policy),
            "body": policy.body,
            "proposed by": policy.proposed_by,
        }
        for policy in policies
    } | {"policy adoptions": {"order": [(str(policy), by) for policy, by in adoptions]}}


def _read_diagnoses() -> Facts:
    gates = defaultdict[int, dict[str, str]](dict)
    for diagnosis, gate, verdict in GateResult.objects.order_by().values_list(
        "diagnosis_id", "gate", "verdict"
    ):
        gates[diagnosis][gate] = verdict
    rows = Diagnosis.objects.order_by().values_list("pk", "verdict", "digest")
    return {
        f"diagnosis {pk}": {"verdict": verdict, "digest": digest, "gates": gates[pk]}
        for pk, verdict, digest in rows
    }


def _read_releases() -> Facts:
    states = dict(ReleaseStatus.objects.values_list("pk", "state"))
    rows = Release.objects.order_by().values_list(
        "pk", "line", "purpose", "interval_seconds", "seed", "launched_by"
    )
    registrations = FallbackRegistration.objects.order_by("pk").values_list("release_id", "registered_by")
    return {
        f"release {pk}": {
            "line": line,
            "purpose": purpose,
            "interval_seconds": interval,
            "seed": seed,
            "launched by": by,
            "state": states.get(pk),
        }
        for pk, line, purpose, interval, seed, by in rows
    } | {"fallback registrations": {"order": [(str(release), by) for release, by in registrations]}}


def _read_moves() -> Facts:
    digests = defaultdict[int | None, dict[str, str]](dict)
    rows = ReleaseCoin.objects.order_by().filter(bundle__isnull=False, release__moves__isnull=False)
    for release, coin, digest in rows.values_list("release_id", "coin__symbol", "bundle__digest"):
        digests[release][coin] = digest
    moves = PointerMove.objects.order_by().select_related("policy")
    return {
        f"revision {move.revision}": {
            "event": move.audit_seq,
            "kind": "pointer.advanced" if move.is_advance else f"pointer.{move.kind}",
            "release": move.release_id,
            "policy": move.policy.number if move.policy else None,
            "bundles": digests[move.release_id],
            "moved by": move.moved_by,
            "reason": move.reason,
        }
        for move in moves
    }


def _read_statements() -> Facts:
    return {
        f"statement about bundle {statement.bundle_id}": {
            "event": statement.audit_seq,
            "body": statement.sha256 if statement.is_intact else None,
        }
        for statement in Statement.objects.order_by().iterator()
    }


def _read_keys_and_coins() -> Facts:
    keys = SigningKey.objects.order_by().values_list("pk", "key_id", "public_hex", "state")
    decided = AuditEvent.objects.filter(kind__in=("coin.required", "coin.released")).values("object_id")
    coins = Coin.objects.order_by().filter(pk__in=[int(row["object_id"]) for row in decided])
    return {
        f"signing key {pk}": {"key": key, "public half": public, "state": state}
        for pk, key, public, state in keys
    } | {f"coin {pk}": {"required": required} for pk, required in coins.values_list("pk", "is_required")}
