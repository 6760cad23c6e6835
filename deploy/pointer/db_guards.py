"""Database guards of releases and the pointer (rule 8, docs/rules.md#8)."""

from audit import triggers
from audit.triggers import Guard
from deploy.rules import MoveKind
from gates.catalogue.registry import BASELINE_NAMES

POLICY_IN_FORCE = "(SELECT policy_id FROM gates_policyadoption ORDER BY id DESC LIMIT 1)"
FALLBACK = "(SELECT release_id FROM deploy_fallbackregistration ORDER BY id DESC LIMIT 1)"
POINTED_AT = "(SELECT release_id FROM deploy_pointermove ORDER BY revision DESC LIMIT 1)"

BASELINE_GATES = ", ".join(f"'{name}'" for name in sorted(BASELINE_NAMES))

# A required coin without a bundle in this release whose diagnosis under the policy in force passed as a whole: gate by
# gate, each that the policy requires, with the event that says so and names its digest.
UNPROVEN_COIN = f"""EXISTS (SELECT 1 FROM training_coin coin WHERE coin.is_required AND NOT EXISTS (
    SELECT 1 FROM deploy_releasecoin release_coin
    JOIN training_bundle bundle ON bundle.id = release_coin.bundle_id AND bundle.coin_id = release_coin.coin_id
    JOIN gates_diagnosis diagnosis ON diagnosis.bundle_id = bundle.id AND diagnosis.coin_id = coin.id
    WHERE release_coin.release_id = NEW.release_id AND release_coin.coin_id = coin.id
      AND diagnosis.policy_id = NEW.policy_id AND diagnosis.verdict = 'passed'
      AND diagnosis.dataset_id = release_coin.dataset_id
      AND (SELECT COUNT(*) FROM gates_gateresult result
           WHERE result.diagnosis_id = diagnosis.id AND result.is_required
             AND result.gate IN ({BASELINE_GATES})) = {len(BASELINE_NAMES)}
      AND (SELECT COUNT(*) FROM gates_gateresult result
           WHERE result.diagnosis_id = diagnosis.id AND result.is_required)
          >= (SELECT policy.required_gates FROM gates_gatepolicy policy WHERE policy.id = diagnosis.policy_id)
      AND EXISTS (SELECT 1 FROM audit_auditevent event
           WHERE event.object_type = 'diagnosis' AND event.object_id = CAST(diagnosis.id AS varchar(20))
             AND event.kind = 'diagnosis.passed' AND event.body LIKE '%' || diagnosis.digest || '%')
      AND NOT EXISTS (SELECT 1 FROM gates_gateresult result
           WHERE result.diagnosis_id = diagnosis.id AND result.is_required AND result.verdict <> 'passed')))"""

MOVES = "deploy_pointermove"
LAST_REVISION = f"(SELECT MAX(revision) FROM {MOVES})"
KINDS = ", ".join(f"'{kind}'" for kind in MoveKind)


def _guard_move(name: str, message: str, condition: str) -> Guard:
    return Guard(f"{MOVES}_{name}", MOVES, "INSERT", message, condition)


GUARDS = [
    *triggers.build_append_only(MOVES),
    _guard_move(
        "follows",
        "a move must follow the last revision",
        f"NOT NEW.is_advance AND NEW.revision <> (SELECT COALESCE(MAX(revision), 0) + 1 FROM {MOVES})",
    ),
    _guard_move(
        "advances_in_place",
        "an advance must say again what the last move said, under a higher revision",
        # It is let past the other guards on a move, so it may change nothing that a bot runs.
        f"NEW.is_advance AND NOT EXISTS (SELECT 1 FROM {MOVES} last WHERE last.revision = {LAST_REVISION}"
        " AND NEW.previous_id = last.revision AND NEW.revision > last.revision AND NEW.kind = last.kind"
        " AND NEW.release_id IS NOT DISTINCT FROM last.release_id"
        " AND NEW.policy_id IS NOT DISTINCT FROM last.policy_id)",
    ),
    _guard_move(
        "is_of_a_known_kind",
        "a move is inherited, a swap, a pin or offline",
        # What follows guards each kind by its name: a move of any other would pass by all of it.
        f"NEW.kind NOT IN ({KINDS})",
    ),
    _guard_move(
        "has_its_event",
        "a move needs its own event in the audit chain",
        "NOT EXISTS (SELECT 1 FROM audit_auditevent e WHERE e.seq = NEW.audit_seq"
        " AND e.object_type = 'pointermove' AND e.object_id = CAST(NEW.revision AS varchar(20)))",
    ),
    _guard_move(
        "pins_the_fallback",
        "a pin must name the registered fallback",
        f"NOT NEW.is_advance AND NEW.kind = 'pin' AND NEW.release_id IS DISTINCT FROM {FALLBACK}",
    ),
    _guard_move(
        "swaps_under_the_policy_in_force",
        "a swap must name the policy in force",
        f"NOT NEW.is_advance AND NEW.kind = 'swap' AND NEW.policy_id IS DISTINCT FROM {POLICY_IN_FORCE}",
    ),
    _guard_move(
        "swaps_what_passed",
        "a swap needs every required coin, each with a passed diagnosis of its bundle under the policy in force",
        f"NOT NEW.is_advance AND NEW.kind = 'swap' AND ({UNPROVEN_COIN}"
        " OR NOT EXISTS (SELECT 1 FROM training_coin c WHERE c.is_required)"
        " OR NOT EXISTS (SELECT 1 FROM deploy_release r WHERE r.id = NEW.release_id AND r.purpose = 'candidate'))",
    ),
    *triggers.build_frozen(
        "deploy_release",
        *(
            "line",
            "purpose",
            "policy_id",
            "interval_seconds",
            "seed",
            "is_reproduced",
            "budget_id",
            "study_id",
            "best_of",
            "launched_by",
            "deadline_at",
        ),
    ),
    *triggers.build_frozen("deploy_releasecoin", "release_id", "coin_id", "dataset_id"),
    Guard(
        "deploy_releasecoin_trains_on_sound_candles",
        "deploy_releasecoin",
        "INSERT",
        "candles that did not pass cannot train a release",
        "NOT EXISTS (SELECT 1 FROM training_dataset d WHERE d.id = NEW.dataset_id AND d.verdict = 'passed'"
        " AND d.withdrawn_at IS NULL)",
    ),
    Guard(
        "deploy_dataset_in_use_is_not_withdrawn",
        "training_dataset",
        "UPDATE",
        "a release that is undecided, live or the fallback stands on these candles",
        "NEW.withdrawn_at IS NOT NULL AND OLD.withdrawn_at IS NULL AND EXISTS (SELECT 1 FROM deploy_releasecoin release_coin"
        " JOIN deploy_releasestatus status ON status.release_id = release_coin.release_id"
        " LEFT JOIN training_bundle bundle ON bundle.id = release_coin.bundle_id"
        " WHERE (release_coin.dataset_id = NEW.id OR bundle.dataset_id = NEW.id)"
        " AND (status.state IN ('building', 'awaiting_approval', 'live')"
        f" OR release_coin.release_id = {FALLBACK} OR release_coin.release_id = {POINTED_AT}))",
    ),
    *triggers.build_write_once("deploy_releasecoin", "run_id", "bundle_id", "diagnosis_id"),
    *triggers.build_append_only("deploy_fallbackregistration"),
    Guard(
        "deploy_fallback_is_on_standby",
        "deploy_fallbackregistration",
        "INSERT",
        "only a fallback release on standby can be registered, by another person than its launcher",
        "NOT EXISTS (SELECT 1 FROM deploy_release r JOIN deploy_releasestatus s ON s.release_id = r.id"
        " WHERE r.id = NEW.release_id AND r.purpose = 'fallback' AND s.state = 'standby'"
        " AND r.launched_by <> NEW.registered_by)",
    ),
    *triggers.build_frozen("deploy_signingkey", "key_id", "public_hex", "created_by", "created_at"),
    *triggers.build_write_once("deploy_signingkey", "activated_at", "retired_at"),
    Guard(
        "deploy_signingkey_begins_as_next",
        "deploy_signingkey",
        "INSERT",
        "a signing key begins as next",
        "NEW.state <> 'next'",
    ),
    Guard(
        "deploy_signingkey_stays_retired",
        "deploy_signingkey",
        "UPDATE",
        "a signing key only goes from next to active to retired",
        "NEW.state <> OLD.state AND NOT (OLD.state = 'next' AND NEW.state IN ('active', 'retired'))"
        " AND NOT (OLD.state = 'active' AND NEW.state = 'retired')",
    ),
    *triggers.build_append_only("deploy_keyset"),
    *triggers.build_append_only("deploy_statement"),
    Guard(
        "deploy_statement_has_its_event",
        "deploy_statement",
        "INSERT",
        "a statement about a bundle needs its own event in the audit chain",
        "NOT EXISTS (SELECT 1 FROM audit_auditevent e WHERE e.seq = NEW.audit_seq AND e.kind = 'bundle.reproduced'"
        " AND e.object_type = 'bundle' AND e.object_id = CAST(NEW.bundle_id AS varchar(20))"
        " AND e.body LIKE '%' || NEW.sha256 || '%')",
    ),
    *triggers.build_frozen("deploy_serviceidentity", "name"),
    *triggers.build_frozen("deploy_alarm", "name", "severity", "sentence", "remedy", "raised_at"),
    *triggers.build_write_once("deploy_alarm", "cleared_at"),
    Guard(
        "deploy_acknowledgement_stands",
        "deploy_acknowledgement",
        "UPDATE",
        "an acknowledgement never changes",  # it may go: with its bot, or when it is old
    ),
    *triggers.build_frozen("deploy_backuptask", "kind", "requested_by", "requested_at"),
    Guard(
        "deploy_backuptask_result_stands",
        "deploy_backuptask",
        "UPDATE",
        "how a backup or a drill ended never changes",
        "OLD.state IN ('done', 'failed')",
    ),
    *triggers.build_append_only("deploy_convergence"),
    Guard(
        "deploy_livewindow_stands",
        "deploy_livewindow",
        "UPDATE",
        "a live window never changes",  # it may go: with its bot, or when it is old
    ),
]
