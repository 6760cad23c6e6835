"""The decisions about a release: pages, API, commands and services read what differs between them from this table."""

from collections.abc import Mapping
from dataclasses import dataclass

from accounts.roles import Role
from deploy.rules import Action


@dataclass(frozen=True)
class ReleaseDecision:
    """One row: who may decide, what else they must state, and how interfaces call it."""

    action: Action
    role: Role
    task: str
    """Completes "may not …"."""
    participle: str
    """Completes "it cannot be …"."""
    help: str
    """What the decision does, for the API and the command line."""
    result: str
    """What a page says afterwards, about `line`, `release` and `revision`."""
    button: str = ""
    """Empty where only a command offers it."""
    is_second_person_needed: bool = False
    """Whether the launcher may not decide (rule 5, docs/rules.md#5)."""
    is_revision_needed: bool = False
    """Whether the revision that the person saw must still be the pointer's."""
    is_rejection: bool = False

    @property
    def operation(self) -> str:
        """Its name in the API, such as `approve_release`."""
        return self.task.replace(" a ", "_")


DECISIONS: Mapping[Action, ReleaseDecision] = {
    row.action: row
    for row in (
        ReleaseDecision(
            Action.APPROVE,
            Role.APPROVER,
            task="approve a release",
            participle="approved",
            help="Let the bots use a release that passed every gate, as an approver who did not launch it.",
            result="Approved: every bot must run {line} of release {release} (revision {revision}).",
            button="Approve",
            is_second_person_needed=True,
            is_revision_needed=True,
        ),
        ReleaseDecision(
            Action.DECLINE,
            Role.APPROVER,
            task="decline a release",
            participle="declined",
            help="Refuse a release that passed, as an approver. The fallback is pinned unless the live release has passed.",
            result="Declined release {release}.",
            button="Decline",
            is_rejection=True,
        ),
        ReleaseDecision(
            Action.RESTORE,
            Role.APPROVER,
            task="restore a release",
            participle="restored",
            help="Restore a release that was live before, as an approver who did not launch it. Every check is repeated.",
            result="Restored: every bot must run {line} of release {release} (revision {revision}).",
            button="Restore",
            is_second_person_needed=True,
            is_revision_needed=True,
        ),
        ReleaseDecision(
            Action.CANCEL,
            Role.OPERATOR,
            task="cancel a release",
            participle="cancelled",
            help="Stop building a release, as an operator. It is rejected at once.",
            result="Cancelled release {release}.",
            button="Cancel",
            is_rejection=True,
        ),
        ReleaseDecision(
            Action.REGISTER,
            Role.APPROVER,
            task="register a fallback",
            participle="registered as the fallback",
            help="Register a standby release as the fallback, as an approver who did not launch it.",
            result="Registered: a pin holds the bots on {line} of release {release} from now on.",
            button="Register as the fallback",
            is_second_person_needed=True,
        ),
        ReleaseDecision(
            Action.INHERIT,
            Role.APPROVER,
            task="inherit a release",
            participle="inherited",
            help="Start the pointer with the release that the bots run already, as an approver: revision 1.",
            result="Inherited release {release} (revision {revision}).",
        ),
    )
}
