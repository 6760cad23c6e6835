"""Nothing but a decision moves the pointer: the database refuses ORM, SQL and REPLACE alike, after all migrations."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from audit import services as audit
from audit import triggers
from audit.models import AuditEvent
from common.errors import Unavailable
from deploy.models import FallbackRegistration, PointerMove, Release, ReleaseCoin, Statement
from deploy.pointer import pointer, proof
from deploy.releases import decide
from deploy.rules import MoveKind, ReleaseState
from deploy.serving import keys, signing, statements
from gates.models import Diagnosis, GateResult
from gates.policy import BASELINE_POLICY, FULL_POLICY
from gates.services.policies import policy_in_force
from tests import scenarios
from tests.scenarios import APPROVER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


@pytest.fixture(scope="module", autouse=True)
def in_use(django_db_setup: None, django_db_blocker: Any) -> Iterator[PointerMove]:
    """A service in use, made once: each test leaves it as it found it."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield scenarios.service_in_use()
        transaction.set_rollback(True)


def sql(text: str) -> Callable[[], None]:
    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    return run


def forged(kind: str, release: Release | None, revision: int = 2, previous: int | None = 1) -> PointerMove:
    """A move with its event, as somebody with the whole code base at hand would write it past the services."""
    policy = policy_in_force()
    move = PointerMove(
        revision=revision,
        previous_id=previous,
        release=release,
        policy=policy,
        kind=kind,
        moved_by="mallory",
        reason="mine",
    )
    move.moved_at = timezone.now()
    move.audit_seq = audit.record("pointer.swap", move, actor="mallory").seq
    return move


def refused(act: Callable[[], object]) -> None:
    before = pointer.get_current()
    with pytest.raises(DatabaseError), transaction.atomic():
        act()
    assert pointer.get_current() == before


def test_a_swap_to_a_release_that_failed_is_refused() -> None:
    rejected = scenarios.Build(figures={"SOL": scenarios.inaccurate("SOL")}).settled()
    refused(lambda: forged("swap", rejected, 3, 2).save(force_insert=True))


@pytest.mark.parametrize("kind", ["SWAP", "swap ", "move", ""])
def test_a_move_of_no_known_kind_is_refused(kind: str) -> None:
    rejected = scenarios.Build(figures={"SOL": scenarios.inaccurate("SOL")}).settled()
    refused(lambda: forged(kind, rejected, 3, 2).save(force_insert=True))


def test_a_swap_to_a_release_that_lacks_a_coin_is_refused() -> None:
    release = scenarios.awaiting_approval()
    scenarios.Coin.objects.create(symbol="DOT")
    refused(lambda: forged("swap", release).save(force_insert=True))


def test_a_swap_to_the_broken_inherited_release_is_refused(in_use: PointerMove) -> None:
    refused(lambda: forged("swap", in_use.release).save(force_insert=True))


def test_a_swap_with_a_forged_diagnosis_without_gates_is_refused() -> None:
    release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).release()
    for release_coin in release.coins.all():
        assert release_coin.bundle
        measurement = release_coin.bundle.measurements.get()
        Diagnosis.objects.create(
            measurement=measurement,
            coin=release_coin.coin,
            bundle=release_coin.bundle,
            dataset=release_coin.dataset,
            policy=release.policy,
            policy_body=release.policy.body,
            measured=measurement.body,
            verdict="passed",
            digest="sha256:0",
        )
    refused(lambda: forged("swap", release).save(force_insert=True))


def forged_pass(release_coin: ReleaseCoin, gates: Iterable[str], *, is_recorded: bool) -> None:
    """A passed diagnosis of a coin, with these gates' words, written past the service."""
    assert release_coin.bundle
    release, measurement = release_coin.release, release_coin.bundle.measurements.get()
    diagnosis = Diagnosis.objects.create(
        measurement=measurement,
        coin=release_coin.coin,
        bundle=release_coin.bundle,
        dataset=release_coin.dataset,
        policy=release.policy,
        policy_body=release.policy.body,
        measured=measurement.body,
        verdict="passed",
        digest=f"sha256:{release_coin.pk}",
    )
    words = {"is_required": True, "verdict": "passed", "observed": "", "threshold": "", "sentence": ""}
    for position, gate in enumerate(gates):
        diagnosis.results.create(position=position, gate=gate, **words)
    if is_recorded:
        detail = {"digest": diagnosis.digest}
        audit.record("diagnosis.passed", diagnosis, actor="mallory", detail=detail)


@pytest.mark.parametrize(
    ("gates", "is_recorded", "stands"),
    [
        (FULL_POLICY["gates"], False, False),
        (BASELINE_POLICY["gates"], True, False),
        (FULL_POLICY["gates"], True, True),
    ],
    ids=[
        "whole, but the audit knows nothing of it",
        "of the baseline gates alone",
        "whole, and in the audit for all to see",
    ],
)
def test_a_forged_pass_needs_every_gate_of_its_policy_and_its_event(
    gates: Iterable[str], is_recorded: bool, stands: bool
) -> None:
    release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).release()
    for release_coin in release.coins.all():
        forged_pass(release_coin, gates, is_recorded=is_recorded)
    if stands:
        forged("swap", release).save(force_insert=True)
    else:
        refused(lambda: forged("swap", release).save(force_insert=True))


def forged_live(release: Release, *, knows_secret: bool) -> None:
    """Everything that makes a rejected release live, by INSERTs that satisfy each database guard."""
    with pytest.MonkeyPatch.context() as patch:
        if not knows_secret:
            patch.setattr(settings, "SECRET_KEY", "a guess")
        for release_coin in release.coins.all():
            forged_pass(release_coin, FULL_POLICY["gates"], is_recorded=True)
        forged("swap", release).save(force_insert=True)


@pytest.mark.parametrize(
    ("knows_secret", "says"),
    [
        (False, "the audit event of revision 2 was not written by this service"),
        (True, "revision 2 differs from its audit event"),
    ],
    ids=["with access to the database", "and with the secret key"],
)
def test_a_release_made_live_by_inserts_is_never_signed(knows_secret: bool, says: str) -> None:
    keys.export_public()
    forged_live(
        scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).release(),
        knows_secret=knows_secret,
    )
    with pytest.raises(Unavailable, match=says):
        signing.get_envelope()
    assert says in (signing.find_problem() or "")
    assert audit.verify() != []


def test_a_swap_without_a_recorded_verdict_is_never_signed() -> None:
    """Even where the event of the move is the service's own and says the same."""
    release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).release()
    for release_coin in release.coins.all():
        forged_pass(release_coin, FULL_POLICY["gates"], is_recorded=True)
    pointer.move(MoveKind.SWAP, release, policy=policy_in_force(), actor="mallory", reason="mine")
    with pytest.raises(Unavailable, match=r"no event releasestatus\.awaiting_approval for release"):
        signing.get_envelope()


def test_a_forged_statement_about_a_second_training_is_never_announced() -> None:
    """The guard takes any event that names it; that this service wrote the event takes the secret key."""
    release = scenarios.awaiting_approval()
    bundle = release.coins.get(coin__symbol="SOL").bundle
    assert bundle is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SECRET_KEY", "a guess")
        scenarios.sign_statement(bundle)
    keys.export_public()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    with pytest.raises(Unavailable, match="did not write the statement about SOL"):
        statements.find_statement(bundle)
    assert "does not show that this service wrote the statement about SOL" in (signing.find_problem() or "")
    assert f"statement about bundle {bundle.pk} has no event in the audit chain" in audit.verify()


def test_a_statement_that_was_changed_is_found() -> None:
    release = scenarios.awaiting_approval()
    bundle = release.coins.get(coin__symbol="SOL").bundle
    assert bundle is not None
    statement = scenarios.sign_statement(bundle)
    assert statements.find_statement(bundle) == statement
    assert [found for found in audit.verify() if "statement" in found] == []
    change_without_guards(Statement.objects.all(), body="{}")
    with pytest.raises(Unavailable, match="did not write the statement"):
        statements.find_statement(bundle)
    differs = f"statement about bundle {bundle.pk} differs from the audit chain: body"
    assert differs in audit.verify()


@pytest.mark.parametrize(
    "change", [{"kind": "offline"}, {"kind": "inherited"}, {"policy": None}, {"is_advance": True}], ids=str
)
def test_a_move_whose_columns_say_something_else_than_its_event_is_found(change: dict[str, Any]) -> None:
    """As the database's owner could write it: another kind needs less proof, and so may another policy."""
    release = scenarios.awaiting_approval()
    move = decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    assert proof.find_forgery(move) is None
    for name, value in change.items():
        setattr(move, name, value)
    assert f"revision {move.revision} differs from its audit event" in (proof.find_forgery(move) or "")


def change_without_guards(rows: QuerySet[Any], **values: Any) -> None:
    triggers.drop()
    try:
        assert rows.update(**values)
    finally:
        triggers.install()


def test_an_event_of_another_release_cannot_be_relabelled() -> None:
    """The database's owner takes the guards away and writes another release into the columns of an authentic event."""
    keys.export_public()
    passed = scenarios.awaiting_approval()
    release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate), seed=3).release()
    for release_coin in release.coins.all():
        forged_pass(release_coin, FULL_POLICY["gates"], is_recorded=True)
    pointer.move(MoveKind.SWAP, release, policy=policy_in_force(), actor="mallory", reason="mine")
    events = AuditEvent.objects.filter(kind="releasestatus.awaiting_approval", object_id=str(passed.pk))
    change_without_guards(events, object_id=str(release.pk))
    with pytest.raises(Unavailable, match=r"no event releasestatus\.awaiting_approval for release"):
        signing.get_envelope()


def test_a_failed_verdict_that_was_changed_for_the_approval_alone_is_found() -> None:
    """The owner makes it *passed*, has the release approved, and restores it: then it is that of its event again."""
    release = scenarios.Build(figures={"SOL": scenarios.inaccurate("SOL")}, seed=3).settled()
    sol = Diagnosis.objects.filter(release_coins__release=release, coin__symbol="SOL")
    results = GateResult.objects.filter(diagnosis__in=sol)
    verdicts = dict(results.values_list("pk", "verdict"))
    change_without_guards(sol, verdict="passed")
    change_without_guards(results, verdict="passed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SECRET_KEY", "a guess")
        detail = {"digest": sol.get().digest}
        audit.record("diagnosis.passed", sol.get(), actor="mallory", detail=detail)
    for state in (ReleaseState.AWAITING_APPROVAL, ReleaseState.LIVE):
        audit.record(f"releasestatus.{state}", release.status, actor="mallory")
    move = pointer.move(MoveKind.SWAP, release, policy=policy_in_force(), actor="mallory", reason="mine")
    change_without_guards(sol, verdict="failed")
    for pk, verdict in verdicts.items():
        change_without_guards(results.filter(pk=pk), verdict=verdict)
    found = proof.find_forgery(move)
    assert found == f"the audit chain does not show that SOL of revision {move.revision} passed its policy"


def test_a_move_without_its_event_is_refused() -> None:
    move = forged("swap", scenarios.awaiting_approval())
    move.audit_seq = 1
    refused(lambda: move.save(force_insert=True))


def test_a_pin_to_something_else_than_the_fallback_is_refused() -> None:
    refused(lambda: forged("pin", scenarios.awaiting_approval()).save(force_insert=True))


@pytest.mark.parametrize(("revision", "previous"), [(3, 1), (2, None), (1, None), (0, None)])
def test_a_revision_that_does_not_follow_is_refused(revision: int, previous: int | None) -> None:
    release = scenarios.awaiting_approval()
    refused(lambda: forged("swap", release, revision, previous).save(force_insert=True))


class TestSQL:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _after_a_rejection_and_a_swap(cls, in_use: PointerMove) -> Iterator[None]:
        with transaction.atomic():
            scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate), seed=3).settled()
            decide.approve(scenarios.awaiting_approval(), actor=APPROVER, reason="passed", revision=2)
            yield
            transaction.set_rollback(True)

    @pytest.mark.parametrize(
        "text",
        [
            "UPDATE deploy_pointermove SET release_id = (SELECT MAX(id) FROM deploy_release) WHERE revision = 1",
            "DELETE FROM deploy_pointermove",
            "UPDATE deploy_pointermove SET reason = 'nothing happened'",
            "INSERT INTO deploy_pointermove (revision, previous_id, release_id, policy_id, kind, moved_by, reason, moved_at,"
            " audit_seq) SELECT 2, 1, MAX(id), 1, 'swap', 'mallory', 'mine', '2026-01-01', 1 FROM deploy_release",
            "UPDATE gates_diagnosis SET verdict = 'passed'",
            "UPDATE gates_gateresult SET verdict = 'passed'",
            "DELETE FROM gates_gateresult WHERE verdict <> 'passed'",
            "UPDATE deploy_releasecoin SET diagnosis_id = (SELECT MIN(id) FROM gates_diagnosis)",
            "UPDATE deploy_releasecoin SET bundle_id = (SELECT MIN(id) FROM training_bundle)",
            "UPDATE training_bundle SET line = 'v7_fixed'",
            "UPDATE training_bundle SET interval_seconds = 60",
            "UPDATE training_dataset SET interval_seconds = 60",
            "UPDATE deploy_release SET interval_seconds = 60",
            "UPDATE training_artifact SET sha256 = 'other'",
            "UPDATE gates_gatepolicy SET body = '{}'",
            "UPDATE deploy_release SET launched_by = 'somebody else'",
            "DELETE FROM deploy_fallbackregistration",
            "INSERT INTO deploy_fallbackregistration (release_id, registered_by, reason, at)"
            " SELECT MIN(id), 'mallory', 'mine', '2026-01-01' FROM deploy_release WHERE line = 'v6_enhanced'",
            "UPDATE deploy_releasestatus SET state = 'live' WHERE state <> 'live'",
        ],
    )
    def test_cannot_forge(self, text: str) -> None:
        refused(sql(text))


def test_sqlite_replace_cannot_swap_an_old_move_out() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("REPLACE is SQLite's")
    refused(
        sql(
            "INSERT OR REPLACE INTO deploy_pointermove SELECT revision, kind, 'mallory', reason, moved_at, audit_seq,"
            " policy_id, previous_id, release_id FROM deploy_pointermove"
        )
    )


def test_postgresql_truncate_is_refused() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("TRUNCATE is PostgreSQL's")
    refused(sql("TRUNCATE deploy_pointermove CASCADE"))


@pytest.mark.parametrize("model", [PointerMove, Diagnosis, GateResult, FallbackRegistration, ReleaseCoin])
def test_the_orm_cannot_delete(model: type[Model]) -> None:
    refused(lambda: model._base_manager.all()._raw_delete(using="default"))


def advanced(revision: int, **differs: Any) -> PointerMove:
    """An advance as the service would write it, but for what `differs`."""
    last = pointer.get_current()
    assert last is not None
    move = forged(last.kind, last.release, revision, last.revision)
    move.is_advance, move.policy = True, last.policy
    for name, value in differs.items():
        setattr(move, name, value)
    return move


def test_an_advance_that_says_what_the_last_move_said_may_leave_a_gap() -> None:
    advanced(40).save(force_insert=True)
    now = pointer.get_current()
    assert now is not None
    assert (now.revision, now.previous_id, now.kind) == (40, 1, "inherited")
    assert decide.pin(actor=APPROVER, reason="V6 is broken").revision == 41


def test_an_advance_to_another_release_is_refused() -> None:
    release = scenarios.awaiting_approval()
    refused(lambda: advanced(40, release=release).save(force_insert=True))


@pytest.mark.parametrize("kind", ["swap", "pin", "offline"])
def test_an_advance_of_another_kind_is_refused(kind: str) -> None:
    refused(lambda: advanced(40, kind=kind).save(force_insert=True))


@pytest.mark.parametrize(("revision", "previous"), [(1, 1), (0, 1), (40, None), (40, 40)])
def test_an_advance_that_does_not_go_up_from_the_last_revision_is_refused(
    revision: int, previous: int | None
) -> None:
    refused(lambda: advanced(revision, previous_id=previous).save(force_insert=True))


def test_an_advance_without_its_event_is_refused() -> None:
    refused(lambda: advanced(40, audit_seq=1).save(force_insert=True))


def test_a_swap_still_leaves_no_gap() -> None:
    release = scenarios.awaiting_approval()
    refused(lambda: forged("swap", release, 40, 1).save(force_insert=True))
