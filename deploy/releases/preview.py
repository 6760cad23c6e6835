"""What the policy in force says of a release that was judged by another: what approving it would come to."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.models import Release, ReleaseCoin
from deploy.outcomes import places_of, under
from deploy.rules import Action, Outcome, Result
from gates import services as gates
from gates.models import GatePolicy


@dataclass(frozen=True)
class Today:
    """The verdict that approving or restoring would reach first; a diagnosis is written only then."""

    policy: GatePolicy
    against: Sequence[str]

    @property
    def passes(self) -> bool:
        return not self.against


def today(release: Release | None) -> Today | None:
    """None where there is nothing to foretell: nobody may approve it, or the policy in force is the one it was judged by.

    Reads; what the policy in force has judged already it takes as it was judged.
    """
    if release is None or not release.allowed_actions & {Action.APPROVE, Action.RESTORE}:
        return None
    policy = gates.policy_in_force()
    if release.policy_id == policy.pk:
        return None
    places = places_of(release)
    by_coin = {place.coin.symbol: place for place in places}
    found = [_foretold(outcome, by_coin.get(outcome.coin), policy) for outcome in under(policy, places)]
    against = [line for outcome in found for line in outcome.failures()]
    return Today(policy, against if found else ["no required coin"])


def _foretold(judged: Outcome, place: ReleaseCoin | None, policy: GatePolicy) -> Outcome:
    """As the policy has judged the coin; where it has not, as it would."""
    if judged.missing is None or place is None or place.bundle is None:
        return judged
    spoken = gates.foretell(place.bundle, policy, dataset=place.dataset)
    if spoken is None:
        return judged
    coin = place.coin.symbol
    results = [Result(coin, o.gate, o.is_required, o.verdict, o.observed, o.threshold) for o in spoken]
    return Outcome(coin, results)
