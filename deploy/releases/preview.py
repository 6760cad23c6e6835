"""What a decision about a release would do: the verdict of the policy in force, and the coins that would not change."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.models import PointerMove, Release, ReleaseCoin
from deploy.outcomes import list_outcomes, list_release_coins
from deploy.rules import Action, Outcome, list_failures
from gates.models import GatePolicy
from gates.services import judging, policies


@dataclass(frozen=True)
class PolicyPreview:
    """The verdict that approving or restoring would reach; a diagnosis is written only then."""

    policy: GatePolicy
    problems: Sequence[str]
    """Coin, gate, figure and threshold of each result that did not pass."""

    @property
    def passes(self) -> bool:
        return not self.problems


def preview_policy(release: Release | None) -> PolicyPreview | None:
    """None where nobody may approve the release, or where the policy in force has judged it.

    Writes nothing. A coin that the policy in force has judged already keeps that judgement.
    """
    if release is None or not release.allowed_actions & {Action.APPROVE, Action.RESTORE}:
        return None
    policy = policies.policy_in_force()
    if release.policy_id == policy.pk:
        return None
    release_coins = list_release_coins(release)
    by_coin = {release_coin.coin.symbol: release_coin for release_coin in release_coins}
    outcomes = [
        _preview_coin(outcome, by_coin.get(outcome.coin), policy)
        for outcome in list_outcomes(policy, release_coins)
    ]
    return PolicyPreview(policy, list_failures(outcomes))


def list_unchanged_coins(release: Release, now: PointerMove | None) -> list[str]:
    """The coins whose bundle the bots run already, where a decision could put this release live."""
    if now is None or now.release is None or not release.allowed_actions & {Action.APPROVE, Action.RESTORE}:
        return []
    live = now.release.digests
    return [coin for coin, digest in release.digests.items() if live.get(coin) == digest]


def _preview_coin(judged: Outcome, release_coin: ReleaseCoin | None, policy: GatePolicy) -> Outcome:
    """The judgement of the policy; where there is none, the judgement it would give."""
    if judged.missing is None or release_coin is None or release_coin.bundle is None:
        return judged
    outcomes = judging.preview_outcomes(release_coin.bundle, policy, dataset=release_coin.dataset)
    return judged if outcomes is None else Outcome(release_coin.coin.symbol, outcomes)
