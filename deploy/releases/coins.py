"""Which coins there are, and which of them a release must carry (ADR 0004).

It stands here and not in training, because what a change means is said in releases: what is live, what a pin would do.
"""

import re

from django.db import IntegrityError, transaction

from accounts.rules import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotAllowed
from common.reasons import required_reason
from deploy import outcomes
from deploy.models import Release
from deploy.pointer import pointer
from deploy.rules import ReleaseState
from training.models import Coin, Dataset

_SYMBOL = re.compile(r"[A-Z0-9]{1,12}")
_UNDECIDED = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL)


def add_coin(symbol: str, *, name: str = "", actor: Actor, reason: str) -> Coin:
    """A coin for which candles can be kept; no release need carry it yet. Raises NotAllowed, InvalidInput, Conflict."""
    coin = Coin(symbol=symbol.strip().upper(), name=name.strip(), is_required=False)
    with audit.refusals_recorded("coin.add", coin, actor=actor, reason=reason):
        actor.require(Role.OPERATOR, "add a coin")
        reason = required_reason(reason)
        if not _SYMBOL.fullmatch(coin.symbol):
            raise InvalidInput("A symbol has 1 to 12 letters and digits, as in BTC.", field="symbol")
        if len(coin.name) > 60:
            raise InvalidInput("A name has 60 characters at most.", field="name")
        try:
            with transaction.atomic():
                audit.lock_head()
                coin.save(force_insert=True)
                audit.record("coin.added", coin, actor=actor, reason=reason, detail={"name": coin.name})
        except IntegrityError as known:
            raise Conflict(f"There is a coin {coin.symbol} already.") from known
    return coin


def set_required(
    coin: Coin, is_required: bool, *, actor: Actor, reason: str, is_confirmed: bool = False
) -> Coin:
    """Have every release carry this coin from now on, or let releases do without it.

    Raises NotAllowed without the approver role, or for dropping a coin by who launched what is still undecided; Conflict
    when nothing would change, when no required coin would be left, or, with what would follow, unless `is_confirmed`.
    """
    kind = "coin.require" if is_required else "coin.release"
    with audit.refusals_recorded(kind, coin, actor=actor, reason=reason):
        actor.require(Role.APPROVER, "say which coins a release must carry")
        reason = required_reason(reason)
        with transaction.atomic():
            audit.lock_head()
            coin = Coin.objects.get(pk=coin.pk)
            _require_sound(coin, is_required, actor)
            follows = consequences(coin, is_required=is_required)
            if not is_confirmed:
                raise Conflict(
                    f"Confirm that you know what follows (on a terminal: --confirmed): {' '.join(follows)}"
                )
            # The event comes first: the database lets the column change only under it.
            audit.record(
                "coin.required" if is_required else "coin.released",
                coin,
                actor=actor,
                reason=reason,
                detail={"consequences": follows},
            )
            coin.is_required = is_required
            coin.save(update_fields=["is_required"])
    return coin


def consequences(coin: Coin, *, is_required: bool) -> list[str]:
    """What follows at once from requiring this coin, or no longer requiring it, one sentence each."""
    return _of_requiring(coin) if is_required else _of_dropping(coin)


def _require_sound(coin: Coin, is_required: bool, actor: Actor) -> None:
    if coin.is_required == is_required:
        raise Conflict(f"{coin} is {'required' if is_required else 'not required'} already.")
    if is_required:
        return
    if len(outcomes.required_coins()) == 1:
        raise Conflict(
            f"{coin} is the last required coin: a release would hold nothing. Require another first."
        )
    mine = [release for release in _undecided() if release.launched_by == actor.name]
    if mine:
        raise NotAllowed(
            f"{actor} launched {mine[0]}, which is undecided: it takes another approver to drop a coin it must carry."
        )


def _undecided() -> list[Release]:
    return list(Release.objects.select_related("status").filter(status__state__in=_UNDECIDED))


def _holds(release: Release, coin: Coin) -> bool:
    return release.coins.filter(coin=coin, bundle__isnull=False).exists()


def _of_requiring(coin: Coin) -> list[str]:
    now, fallback = pointer.current(), pointer.fallback()
    follows = []
    if now is not None and now.release is not None and not _holds(now.release, coin):
        follows.append(
            f"What the bots run, {now.release}, holds nothing for {coin}: they go on with it for the other coins, and it "
            "no longer counts as having passed, so the next refused release sends them to the fallback."
        )
    if fallback is not None and not _holds(fallback, coin):
        follows.append(
            f"The fallback, {fallback}, holds nothing for {coin} either: it is no longer fit, and until another is "
            "registered a pin sends every bot offline."
        )
    follows += [
        f"{release} was launched without {coin} and can no longer go live."
        for release in _undecided()
        if not release.coins.filter(coin=coin).exists()
    ]
    if not Dataset.objects.filter(coin=coin).standing().exists():
        follows.append(f"There are no candles of {coin}: no release can be launched until there are.")
    return [*follows, f"Every release from now on needs {coin}, passed by every gate."]


def _of_dropping(coin: Coin) -> list[str]:
    left = [other.symbol for other in outcomes.required_coins() if other != coin]
    follows = [f"Releases are launched for {', '.join(left)} alone; whatever {coin} shows holds none back."]
    now = pointer.current()
    if now is not None and now.release is not None and _holds(now.release, coin):
        follows.append(f"Bots keep the {coin} model of {now.release} until another release takes its place.")
    follows += [
        f"{release} is undecided, and no longer needs {coin} to pass."
        for release in _undecided()
        if release.coins.filter(coin=coin).exists()
    ]
    return follows
