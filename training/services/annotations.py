"""Tags and notes of runs: what a person writes about them, to find them again."""

import re
from collections.abc import Sequence

from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import InvalidInput
from training.models import RunTag, TrainingRun
from training.rules import MAX_NOTES_CHARACTERS, MAX_TAGS, TAG_PATTERN


def annotate(
    run: TrainingRun, *, tags: Sequence[str] | None = None, notes: str | None = None, actor: Actor
) -> None:
    """Replace a run's tags, its notes, or both; what is None stays. One event for each change, none without one.

    Raises NotAllowed without the operator role, and InvalidInput for a tag or notes that cannot be.
    """
    with audit.record_refusals("trainingrun.annotate", run, actor=actor):
        actor.require(Role.OPERATOR, "write about a training run")
        wanted = None if tags is None else _check_tags(tags)
        text = None if notes is None else _check_notes(notes)
    with audit.locked():
        run.refresh_from_db(fields=["notes"])
        before = set(RunTag.objects.filter(run=run).values_list("name", flat=True))
        after = before if wanted is None else wanted
        text = run.notes if text is None else text
        if (before, run.notes) == (after, text):
            return
        RunTag.objects.filter(run=run, name__in=before - after).delete()
        RunTag.objects.bulk_create(RunTag(run=run, name=name) for name in sorted(after - before))
        run.notes = text
        run.save(update_fields=["notes"])
        detail = {"tags": sorted(after), "notes": text}
        audit.record("trainingrun.annotated", run, actor=actor, detail=detail)


def split_tags(text: str) -> list[str]:
    """The tags in a line of text, separated by blanks or commas."""
    return re.split(r"[\s,]+", text.strip(" ,\t\n")) if text.strip(" ,\t\n") else []


def _check_tags(tags: Sequence[str]) -> set[str]:
    for tag in tags:
        if not re.fullmatch(TAG_PATTERN, tag):
            raise InvalidInput(
                f"{tag[:40]!r} is no tag: write 1 to 32 small letters, digits, dots, dashes and underscores.",
                field="tags",
            )
    if len(set(tags)) > MAX_TAGS:
        raise InvalidInput(f"A run has at most {MAX_TAGS} tags.", field="tags")
    return set(tags)


def _check_notes(notes: str) -> str:
    notes = notes.replace("\r\n", "\n").strip()
    if len(notes) > MAX_NOTES_CHARACTERS or "\0" in notes:
        raise InvalidInput(f"Notes have at most {MAX_NOTES_CHARACTERS:,} characters.", field="notes")
    return notes
