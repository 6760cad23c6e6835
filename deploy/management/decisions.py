"""What the deciding commands share: a release by number, a reason, and what the pointer says afterwards."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.errors import NotFound
from deploy.models import Release
from deploy.pointer import pointer
from deploy.releases.presentation import summary


class DecisionCommand(ActingCommand):
    """Decides about one release, with a reason."""

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("release", type=int, help="the release's number")
        parser.add_argument("--reason", required=True, help="recorded in the audit history")

    def release(self, options: dict[str, Any]) -> Release:
        release = Release.objects.filter(pk=options["release"]).select_related("status").first()
        if release is None:
            raise NotFound(f"There is no release {options['release']}.")
        return release

    def after(self, release: Release) -> dict[str, Any]:
        """How the release and the pointer stand once decided."""
        now = pointer.current()
        return {**summary(Release.objects.get(pk=release.pk)), "revision": now.revision if now else None}

    def format_answer(self, answer: dict[str, Any]) -> str:
        now = pointer.current()
        what = (now.release.line if now.release else "nothing") if now else "no pointer yet"
        return f"release {answer['release']} is {answer['state']}; the pointer: {what} (revision {answer['revision']})"


class SwapCommand(DecisionCommand):
    """Decides where the pointer goes, on the revision that was seen: by default the one of this moment."""

    def add_own_arguments(self, parser: CommandParser) -> None:
        super().add_own_arguments(parser)
        parser.add_argument(
            "--revision", type=int, help="the revision you looked at; refused if the pointer moved since"
        )

    def seen(self, options: dict[str, Any]) -> int:
        now = pointer.current()
        return int(options["revision"]) if options["revision"] is not None else (now.revision if now else 0)
