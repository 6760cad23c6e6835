"""Adding coins, and deciding which of them every release must carry (ADR 0004, rule 28: docs/rules.md#28).

This is in `deploy` and not in `training`, because the consequences concern releases: what is live, what a pin would do.
"""

import re

from django.db import IntegrityError

from accounts import names
from accounts.decisions import decision, is_same_person
from accounts.roles import Actor, Role
from audit import services as audit
from common.errors import Conflict, InvalidInput, NotAllowed
from deploy import outcomes
from deploy.models import Release
from deploy.pointer import pointer
from deploy.rules import MAX_REQUIRED_COINS, ReleaseState
from training.models import Coin, Dataset

_SYMBOL = re.compile(r"[A-Z0-9]{1,12}")
_UNDECIDED = (ReleaseState.BUILDING, ReleaseState.AWAITING_APPROVAL)


def add_coin(symbol: str, *, name: str = "", actor: Actor, reason: str) -> Coin:
    """Add a coin for which candles can be stored. It is not required yet. Raises NotAllowed, InvalidInput, Conflict."""
    symbol = names.normalize(symbol).strip()
    coin = Coin(symbol=symbol.upper() if symbol.isascii() else symbol, name=name.strip(), is_required=False)
    with decision(
        "coin.add", coin, actor=actor, role=Role.OPERATOR, to="add a coin", reason=reason
    ) as reason:
        if not _SYMBOL.fullmatch(coin.symbol):
            raise InvalidInput("A symbol has 1 to 12 letters and digits, as in BTC.", field="symbol")
        if len(coin.name) > 60:
            raise InvalidInput("A name has 60 characters at most.", field="name")
        if names.has_invisible(coin.name):
            raise InvalidInput("The name holds a character that is not drawn. Leave it out.", field="name")
        try:
            with audit.locked():
                _require_distinct(coin.symbol)
                coin.save(force_insert=True)
                audit.record("coin.added", coin, actor=actor, reason=reason, detail={"name": coin.name})
        except IntegrityError as known:
            raise Conflict(f"There is a coin {coin.symbol} already.") from known
    return coin


def _require_distinct(symbol: str) -> None:
    """Raise Conflict for a symbol that a reader could take for another coin's, as S0L for SOL."""
    for taken in Coin.objects.exclude(symbol=symbol).values_list("symbol", flat=True):
        if names.to_skeleton(taken) == names.to_skeleton(symbol):
            raise Conflict(f"The symbol {symbol} could be mistaken for {taken}, which is a coin already.")


def set_required(
    coin: Coin, is_required: bool, *, actor: Actor, reason: str, is_confirmed: bool = False
) -> Coin:
    """Decide whether every release from now on must carry this coin.

    Raises NotAllowed without the approver role, or when a coin is dropped by the launcher of an undecided release. Raises
    Conflict when nothing would change, when no required coin would be left, or unless `is_confirmed`: the message then
    lists the consequences.
    """
    kind = "coin.require" if is_required else "coin.release"
    to = "decide which coins a release must carry"
    with (
        decision(kind, coin, actor=actor, role=Role.APPROVER, to=to, reason=reason) as reason,
        audit.locked(),
    ):
        coin = Coin.objects.get(pk=coin.pk)
        _require_changeable(coin, is_required, actor)
        detail = {"consequences": list_consequences(coin, is_required=is_required)}
        if not is_confirmed:
            raise Conflict(
                f"Confirm the consequences (on a terminal: --confirmed): {' '.join(detail['consequences'])}"
            )
        # The event comes first: the database lets the column change only under it.
        event = "coin.required" if is_required else "coin.released"
        audit.record(event, coin, actor=actor, reason=reason, detail=detail)
        coin.is_required = is_required
        coin.save(update_fields=["is_required"])
    return coin


def list_consequences(coin: Coin, *, is_required: bool) -> list[str]:
    """What requiring this coin, or no longer requiring it, changes at once, one sentence each."""
    return _consequences_of_requiring(coin) if is_required else _consequences_of_dropping(coin)


def _require_changeable(coin: Coin, is_required: bool, actor: Actor) -> None:
    if coin.is_required == is_required:
        raise Conflict(f"{coin} is {'required' if is_required else 'not required'} already.")
    if is_required:
        if len(outcomes.list_required_coins()) >= MAX_REQUIRED_COINS:
            raise Conflict(
                f"{MAX_REQUIRED_COINS} coins are required already, and a bot cannot report more. Drop another coin first."
            )
        return
    if len(outcomes.list_required_coins()) == 1:
        raise Conflict(
            f"{coin} is the last required coin: a release would be empty. Require another coin first."
        )
    launched = [release for release in _list_undecided() if is_same_person(actor, release.launched_by)]
    if launched:
        raise NotAllowed(
            f"{actor} launched {launched[0]}, which is undecided: it takes another approver to drop a coin it must carry."
        )


def _list_undecided() -> list[Release]:
    return list(Release.objects.select_related("status").filter(status__state__in=_UNDECIDED))


def _has_bundle(release: Release, coin: Coin) -> bool:
    return release.coins.filter(coin=coin, bundle__isnull=False).exists()


def _consequences_of_requiring(coin: Coin) -> list[str]:
    move, fallback = pointer.get_current(), pointer.get_fallback()
    sentences = []
    if move is not None and move.release is not None and not _has_bundle(move.release, coin):
        sentences.append(
            f"What the bots run, {move.release}, has no model for {coin}. They continue with it for the other coins, but it "
            "no longer counts as passed: the next rejected release pins the fallback."
        )
    if fallback is not None and not _has_bundle(fallback, coin):
        sentences.append(
            f"The fallback, {fallback}, has no model for {coin} either. It is no longer ready: until another is "
            "registered, a pin sends every bot offline."
        )
    sentences += [
        f"{release} was launched without {coin} and can no longer go live."
        for release in _list_undecided()
        if not release.coins.filter(coin=coin).exists()
    ]
    if not Dataset.objects.filter(coin=coin).not_withdrawn().exists():
        sentences.append(f"There are no candles of {coin}: no release can be launched until there are.")
    return [*sentences, f"From now on, every release needs a model for {coin} that passes every gate."]


def _consequences_of_dropping(coin: Coin) -> list[str]:
    remaining = [other.symbol for other in outcomes.list_required_coins() if other != coin]
    sentences = [
        f"Releases are launched for {', '.join(remaining)} only; no result for {coin} stops a release."
    ]
    move = pointer.get_current()
    if move is not None and move.release is not None and _has_bundle(move.release, coin):
        sentences.append(f"Bots keep the {coin} model of {move.release} until another release replaces it.")
    sentences += [
        f"{release} is undecided, and no longer needs {coin} to pass."
        for release in _list_undecided()
        if release.coins.filter(coin=coin).exists()
    ]
    return sentences
