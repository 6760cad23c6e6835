"""State and entity diagrams of the documentation, made from the transition tables and the models.

`python -m tests.docs.diagrams` writes docs/concepts/states.md and docs/concepts/entities.md.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import django

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts"
APPS = {
    "training": "Training",
    "studies": "Studies",
    "machines": "Machines",
    "gates": "Gates",
    "deploy": "Releases, pointer and bots",
    "accounts": "People",
    "audit": "Audit",
}
WRITTEN_BY = "Written by `python -m tests.docs.diagrams`; a test compares this page with the code."

RELEASE_LABELS = {
    ("building", "awaiting_approval"): "every required gate passed",
    ("building", "standby"): "a fallback passed its gates",
    ("building", "live"): "inherited as revision 1",
    ("building", "rejected"): "a gate did not pass, cancelled, or overdue",
    ("awaiting_approval", "live"): "approved",
    ("awaiting_approval", "declined"): "declined",
    ("awaiting_approval", "rejected"): "rejected",
    ("live", "superseded"): "another release was approved",
    ("live", "rolled_back"): "pinned",
    ("superseded", "live"): "restored",
    ("rolled_back", "live"): "restored",
}
JOB_LABELS = {
    ("queued", "running"): "claimed by a worker",
    ("queued", "failed"): "could not start",
    ("queued", "cancelled"): "cancelled",
    ("running", "running"): "taken over after a lost lease",
    ("running", "succeeded"): "done",
    ("running", "failed"): "failed, or over its limit",
    ("running", "cancelled"): "cancelled",
}
STUDY_LABELS = {
    ("running", "finished"): "its trials ended, or a limit was reached",
    ("running", "failed"): "no trial has a figure",
    ("running", "cancelled"): "cancelled",
}
KEY_LABELS = {
    ("next", "active"): "activated",
    ("next", "retired"): "retired unused",
    ("active", "retired"): "retired",
}
MACHINE_LABELS = {
    ("requested", "starting"): "the cloud took the order",
    ("requested", "failed"): "the cloud refused, or stopped before",
    ("starting", "running"): "the instance runs",
    ("starting", "stopping"): "stopped by the service or a person",
    ("starting", "stopped"): "ended by itself",
    ("running", "stopping"): "idle, at its bound, or by a person",
    ("running", "stopped"): "reclaimed, or ended by its watchdog",
    ("stopping", "stopped"): "ended, and its bill is final",
}
MOVE_LABELS = {"swap": "approve or restore", "pin": "pin", "offline": "pin, fallback not ready"}


def states_page() -> str:
    """The state diagrams of a release, the pointer, jobs and signing keys."""
    from deploy.rules import KEY_TRANSITIONS, RELEASE_TRANSITIONS
    from machines.rules import MACHINE_TRANSITIONS
    from studies.rules import STUDY_TRANSITIONS
    from training.rules import JOB_TRANSITIONS

    return "\n".join(
        [
            "# States",
            "",
            f"{WRITTEN_BY} What each state means is in the [glossary](../glossary.md).",
            "",
            "## Release",
            "",
            "Only `audit.services.transition` changes a state ([rule 18](../rules.md#18)).",
            "",
            *_state_diagram(RELEASE_TRANSITIONS, RELEASE_LABELS, first="building"),
            "## Pointer",
            "",
            "The kind of the last move. Every arrow is a new revision. An *advance* repeats a move under a higher revision.",
            "",
            *_pointer_diagram(),
            "## Run and measurement",
            "",
            *_state_diagram(JOB_TRANSITIONS, JOB_LABELS, first="queued"),
            "## Study",
            "",
            *_state_diagram(STUDY_TRANSITIONS, STUDY_LABELS, first="running"),
            "## Machine",
            "",
            *_state_diagram(MACHINE_TRANSITIONS, MACHINE_LABELS, first="requested"),
            "## Signing key",
            "",
            *_state_diagram(KEY_TRANSITIONS, KEY_LABELS, first="next"),
        ]
    )


def entities_page() -> str:
    """Every model of the service with its relations, app by app."""
    from django.apps import apps

    parts = [
        "# Entities",
        "",
        f"{WRITTEN_BY} A line is a foreign key, labelled with the name of its field.",
        "",
    ]
    for app, title in APPS.items():
        models = sorted(apps.get_app_config(app).get_models(), key=lambda model: model.__name__)
        lines = [line for model in models for line in _relations(model)]
        parts += [f"## {title}", "", "```mermaid", "erDiagram", *lines, "```", ""]
    return "\n".join(parts)


def pages() -> Mapping[str, str]:
    return {"states.md": states_page(), "entities.md": entities_page()}


def _state_diagram(
    transitions: Mapping[str, frozenset[str]], labels: Mapping[tuple[str, str], str], *, first: str
) -> list[str]:
    """Raises KeyError for a transition without a label."""
    arrows = [
        f"  {before} --> {after}: {labels[str(before), str(after)]}"
        for before, following in transitions.items()
        for after in sorted(following)
    ]
    ends = [f"  {state} --> [*]" for state, following in transitions.items() if not following]
    return ["```mermaid", "stateDiagram-v2", f"  [*] --> {first}", *arrows, *ends, "```", ""]


def _pointer_diagram() -> list[str]:
    """Any kind but *inherited* may follow any other; the database checks it (revisions_follow_one_another)."""
    from deploy.rules import MoveKind

    arrows = [
        f"  {before} --> {after}: {MOVE_LABELS[after]}"
        for before in MoveKind
        for after in MoveKind
        if after != MoveKind.INHERITED and not before == after == MoveKind.OFFLINE
    ]
    return ["```mermaid", "stateDiagram-v2", "  [*] --> inherited: inherit", *arrows, "```", ""]


def _relations(model: type) -> Iterator[str]:
    fields = [field for field in model._meta.get_fields() if field.concrete and field.is_relation]  # type: ignore[attr-defined]
    own = [field for field in fields if field.related_model._meta.app_label in APPS]
    for field in own:
        many = "o|" if field.one_to_one else "o{"
        one = "|o" if field.null else "||"
        yield f"  {field.related_model.__name__} {one}--{many} {model.__name__} : {field.name}"
    if not own:
        yield f"  {model.__name__}"


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
    django.setup()
    CONCEPTS.mkdir(exist_ok=True)
    for name, text in pages().items():
        (CONCEPTS / name).write_text(text)


if __name__ == "__main__":
    main()
