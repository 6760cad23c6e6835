"""Who may move the pointer, when, and what is written when they may not."""

from pathlib import Path
from typing import Any

import pytest

from accounts.roles import Actor
from audit import services as audit
from audit.models import AuditEvent
from common.errors import Conflict, DomainError, InvalidInput, NotAllowed
from deploy.models import PointerMove, Release
from deploy.pointer import pointer
from deploy.releases import decide
from deploy.releases.preview import preview_policy
from deploy.rules import MoveKind, ReleaseState
from deploy.serving.advance import advance_revision
from gates.models import Diagnosis
from gates.services import policies
from tests import scenarios
from tests.deploy.commands import run
from tests.scenarios import APPROVER, LAUNCHER, SECOND_APPROVER, VIEWER

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]


def stricter(above: float) -> None:
    """Put a policy in force that asks for more accuracy."""
    document = policies.policy_in_force().document
    document["gates"]["accuracy"]["above"] = above
    proposed = policies.propose_policy(document, actor=APPROVER, reason="more is wanted")
    policies.adopt_policy(proposed, actor=SECOND_APPROVER, reason="agreed")


def state_of(release: Release) -> str:
    return Release.objects.get(pk=release.pk).state


def assert_refused(error: DomainError, revision: int, kind: str) -> None:
    """The pointer stands, the refusal is in the audit with its message, and the chain is sound."""
    now = pointer.get_current()
    assert now is not None
    assert now.revision == revision
    event = AuditEvent.objects.filter(kind=kind).first()
    assert event is not None
    assert error.message in event.body.encode().decode("unicode_escape") or error.message[:40] in event.body
    assert audit.verify() == []


def test_an_approval_moves_the_pointer_to_the_release() -> None:
    before = scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    move = decide.approve(release, actor=APPROVER, reason="all gates passed", revision=before.revision)
    assert (move.revision, move.kind, move.release_id) == (2, MoveKind.SWAP, release.pk)
    assert state_of(release) == ReleaseState.LIVE
    assert before.release is not None
    assert state_of(before.release) == ReleaseState.SUPERSEDED
    event = AuditEvent.objects.get(pk=move.audit_seq)
    assert (event.object_type, event.object_id, event.actor) == ("pointermove", "2", "anna")
    assert audit.verify() == []


@pytest.mark.parametrize(
    ("actor", "revision", "reason", "says", "error"),
    [
        (VIEWER, 1, "fine", "victor may not approve a release", NotAllowed),
        (Actor("olivia", APPROVER.roles), 1, "fine", "olivia launched", NotAllowed),
        (LAUNCHER, 1, "fine", "olivia may not approve", NotAllowed),
        (APPROVER, 0, "fine", "you saw revision 0, it is 1", Conflict),
        (APPROVER, 1, "  ", "Give a reason", InvalidInput),
    ],
    ids=["by a viewer", "by its launcher", "by an operator", "with an old revision", "without a reason"],
)
def test_an_approval_is_refused(
    actor: Actor, revision: int, reason: str, says: str, error: type[DomainError]
) -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    with pytest.raises(error, match=says) as refused:
        decide.approve(release, actor=actor, reason=reason, revision=revision)
    assert_refused(refused.value, 1, "release.approve.refused")
    assert state_of(release) == ReleaseState.AWAITING_APPROVAL


def test_a_second_approval_of_the_same_release_is_refused() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    with pytest.raises(Conflict, match="is live") as refused:
        decide.approve(release, actor=SECOND_APPROVER, reason="passed", revision=1)
    assert_refused(refused.value, 2, "release.approve.refused")


def test_an_approval_after_one_byte_of_one_artifact_changed_is_refused() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    scenarios.damage(release)
    with pytest.raises(Conflict, match=r"SOL model\.onnx: the stored bytes are not those") as refused:
        decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    assert_refused(refused.value, 1, "release.approve.refused")
    scenarios.damage(release)  # flipped back, for tests that share these bytes
    assert decide.approve(release, actor=APPROVER, reason="passed", revision=1).revision == 2


def test_an_approval_under_a_policy_that_became_stricter_is_refused() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    stricter(0.80)
    with pytest.raises(Conflict, match="does not pass policy 3: BTC accuracy failed") as refused:
        decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    assert_refused(refused.value, 1, "release.approve.refused")


def test_an_approval_under_a_newer_policy_evaluates_again() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    stricter(0.70)
    move = decide.approve(release, actor=APPROVER, reason="passes the new one too", revision=1)
    assert move.policy is not None
    assert move.policy.number == 3
    assert release.policy.number == 2


def test_the_policy_preview_shows_what_an_approval_decides() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    assert preview_policy(release) is None
    stricter(0.80)
    before = AuditEvent.objects.count(), Diagnosis.objects.count()
    found = preview_policy(release)
    assert (AuditEvent.objects.count(), Diagnosis.objects.count()) == before
    assert found is not None and not found.passes
    with pytest.raises(Conflict) as refused:
        decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    assert refused.value.message == f"{release} does not pass policy 3: {'; '.join(found.problems)}"
    assert preview_policy(release) == found  # now from the diagnoses that the refused approval left
    stricter(0.70)
    previewed = preview_policy(release)
    assert previewed is not None and (previewed.policy.number, previewed.passes) == (4, True)
    decide.approve(release, actor=APPROVER, reason="passes the newest", revision=1)
    assert preview_policy(Release.objects.get(pk=release.pk)) is None  # nothing is left to decide


def test_a_release_with_a_weight_that_is_not_finite_is_rejected() -> None:
    scenarios.service_in_use()
    sick = scenarios.healthy("SOL") | {
        "weights": {"tensors": 26, "non_finite": ["fc2.weight"], "problem": None}
    }
    release = scenarios.Build(figures={"SOL": sick}).settled()
    assert state_of(release) == ReleaseState.REJECTED
    with pytest.raises(Conflict, match=r"is rejected.*SOL finite_weights failed") as refused:
        decide.approve(release, actor=APPROVER, reason="passed", revision=2)
    assert_refused(refused.value, 2, "release.approve.refused")


def test_a_coin_that_became_required_meanwhile_holds_the_release_back() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    scenarios.Coin.objects.create(symbol="DOT")
    with pytest.raises(Conflict, match="DOT: the release has no bundle"):
        decide.approve(release, actor=APPROVER, reason="passed", revision=1)


def test_a_rejection_pins_the_fallback_with_one_reason_everywhere() -> None:
    scenarios.service_in_use()
    release = scenarios.Build(figures=scenarios.for_every_coin(scenarios.inaccurate)).settled()
    now = pointer.get_current()
    assert now is not None
    assert (now.kind, now.revision) == (MoveKind.PIN, 2)
    assert now.release == pointer.get_fallback()
    reason = Release.objects.get(pk=release.pk).status.reason
    assert "BTC accuracy failed: 39.1 % of 1,500 bars" in reason
    assert reason in now.reason
    assert AuditEvent.objects.get(pk=now.audit_seq).reason == now.reason
    assert scenarios.snapshot_document(now)["reason"] == now.reason


def test_a_rejection_leaves_a_live_release_that_itself_passed() -> None:
    scenarios.service_in_use()
    decide.approve(scenarios.awaiting_approval(), actor=APPROVER, reason="passed", revision=1)
    scenarios.Build(seed=2, figures=scenarios.for_every_coin(scenarios.inaccurate)).settled()
    now = pointer.get_current()
    assert now is not None
    assert (now.kind, now.revision) == (MoveKind.SWAP, 2)


def test_declining_pins_the_fallback_like_a_rejection() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.decline(release, actor=APPROVER, reason="not before the holidays")
    now = pointer.get_current()
    assert now is not None
    assert now.kind == MoveKind.PIN
    assert state_of(release) == ReleaseState.DECLINED
    assert "not before the holidays" in now.reason


def test_declining_takes_an_approver() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    with pytest.raises(NotAllowed):
        decide.decline(release, actor=LAUNCHER, reason="mine")
    assert state_of(release) == ReleaseState.AWAITING_APPROVAL


def test_a_manual_pin_rolls_the_live_release_back_at_once() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    move = decide.pin(actor=SECOND_APPROVER, reason="it trades oddly")
    assert (move.kind, move.revision) == (MoveKind.PIN, 3)
    assert state_of(release) == ReleaseState.ROLLED_BACK
    with pytest.raises(Conflict, match="on v5 already"):
        decide.pin(actor=SECOND_APPROVER, reason="again")


def test_pinning_takes_an_approver() -> None:
    scenarios.service_in_use()
    with pytest.raises(NotAllowed, match="olivia may not pin") as refused:
        decide.pin(actor=LAUNCHER, reason="worried")
    assert_refused(refused.value, 1, "pointer.pin.refused")


def test_a_fallback_whose_bytes_changed_makes_a_pin_go_offline() -> None:
    scenarios.service_in_use()
    fallback = pointer.get_fallback()
    assert fallback is not None
    scenarios.damage(fallback)
    move = decide.pin(actor=APPROVER, reason="it trades oddly")
    scenarios.damage(fallback)
    assert (move.kind, move.release) == (MoveKind.OFFLINE, None)
    assert "the fallback is not ready: SOL model.onnx" in move.reason
    assert scenarios.snapshot_document(move)["models"] == {}
    assert decide.pin(actor=APPROVER, reason="its bytes are back").kind == MoveKind.PIN


def test_a_rolled_back_release_is_restored_with_every_check_repeated() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    decide.pin(actor=APPROVER, reason="it trades oddly")
    with pytest.raises(NotAllowed, match="launched"):
        decide.restore(release, actor=Actor("olivia", APPROVER.roles), reason="mine", revision=3)
    move = decide.restore(release, actor=APPROVER, reason="it was the exchange", revision=3)
    assert (move.kind, move.revision, state_of(release)) == (MoveKind.SWAP, 4, ReleaseState.LIVE)


def test_a_move_is_called_what_was_done_also_when_a_revision_repeats_it() -> None:
    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    advance_revision(3, actor=APPROVER, reason="restored from a backup")
    decide.pin(actor=APPROVER, reason="it trades oddly")
    decide.restore(release, actor=APPROVER, reason="it was the exchange", revision=6)
    advance_revision(2, actor=APPROVER, reason="restored from a backup")
    labels = [move.action_label for move in PointerMove.objects.order_by("revision")]
    assert labels == ["inherited", "approved", "approved", "pinned", "restored", "restored"]
    assert run("active")[1].startswith(f"revision 9: v7_fixed (release {release.pk}), restored by anna")


def test_a_superseded_release_that_fails_the_new_policy_is_not_restored() -> None:
    scenarios.service_in_use()
    first, second = scenarios.awaiting_approval(1), scenarios.awaiting_approval(2)
    decide.approve(first, actor=APPROVER, reason="passed", revision=1)
    decide.approve(second, actor=APPROVER, reason="passed", revision=2)
    stricter(0.80)
    with pytest.raises(Conflict, match="does not pass policy 3"):
        decide.restore(first, actor=APPROVER, reason="it was better", revision=3)


def test_the_inherited_release_can_never_come_back() -> None:
    before = scenarios.service_in_use()
    decide.pin(actor=APPROVER, reason="V6 is broken")
    assert before.release is not None
    with pytest.raises(Conflict, match="cannot be restored"):
        decide.restore(before.release, actor=APPROVER, reason="I miss it", revision=2)


def test_the_fallback_is_registered_by_another_person_than_its_launcher() -> None:
    release = scenarios.Build(
        line="v5", purpose=scenarios.Purpose.FALLBACK, figures=scenarios.for_every_coin(scenarios.inaccurate)
    ).settled()
    with pytest.raises(NotAllowed):
        decide.register_fallback(release, actor=Actor("olivia", APPROVER.roles), reason="mine")
    decide.register_fallback(release, actor=APPROVER, reason="it behaved")
    assert pointer.get_fallback() == release
    with pytest.raises(Conflict, match="already"):
        decide.register_fallback(release, actor=SECOND_APPROVER, reason="again")


def test_a_candidate_cannot_be_registered_as_the_fallback() -> None:
    release = scenarios.awaiting_approval()
    with pytest.raises(Conflict, match="cannot be registered"):
        decide.register_fallback(release, actor=APPROVER, reason="it is better than v5")


def test_the_first_pointer_is_inherited_once() -> None:
    scenarios.inherited()
    another = scenarios.Build(line="v6_enhanced", purpose=scenarios.Purpose.INHERITED, seed=9).release()
    with pytest.raises(Conflict, match="first pointer already"):
        decide.inherit(another, actor=APPROVER, reason="again")


def test_nothing_moves_before_the_first_pointer() -> None:
    scenarios.fallback()
    release = scenarios.awaiting_approval()
    with pytest.raises(Conflict, match="no pointer yet"):
        decide.approve(release, actor=APPROVER, reason="passed", revision=0)
    with pytest.raises(Conflict, match="no pointer yet"):
        decide.pin(actor=APPROVER, reason="to be safe")
    assert not PointerMove.objects.exists()


def test_the_pointer_does_not_move_while_a_trigger_is_missing() -> None:
    from audit import triggers

    scenarios.service_in_use()
    release = scenarios.awaiting_approval()
    triggers.drop()
    try:
        with pytest.raises(DomainError, match="triggers are missing"):
            decide.approve(release, actor=APPROVER, reason="passed", revision=1)
    finally:
        triggers.install()


def test_a_pin_does_not_wait_for_a_file_store_that_is_away(settings: Any, tmp_path: Path) -> None:
    scenarios.service_in_use()
    (tmp_path / "files").write_text("a file where the store's folder should be")
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "training.atomic_storage.AtomicFileStorage",
            "OPTIONS": {"location": tmp_path / "files"},
        },
    }
    move = decide.pin(actor=APPROVER, reason="it trades oddly")
    assert (move.kind, move.revision) == (MoveKind.PIN, 2)
    assert "the fallback's bytes were not checked" in move.reason


def test_a_candidate_cancelled_after_its_measurement_is_rejected() -> None:
    scenarios.service_in_use()
    release = decide.cancel(scenarios.Build().release(), actor=LAUNCHER, reason="the wrong candles")
    assert release.state == ReleaseState.REJECTED
    assert "cancelled by olivia: the wrong candles" in release.status.reason
