"""Bundles by their digest."""

from common.errors import InvalidInput, NotFound
from training.models import Bundle


def find_bundle(digest: str, *, coin: str | None = None) -> Bundle:
    """The bundle whose digest has this beginning, optionally of a coin. Raises NotFound, InvalidInput for several."""
    beginning = f"sha256:{digest.removeprefix('sha256:')}"
    rows = Bundle.objects.select_related("coin", "dataset").filter(digest__startswith=beginning)
    bundles = list(rows.filter(coin__symbol=coin.upper()) if coin else rows)
    if not bundles:
        raise NotFound(f"No bundle's digest begins with {digest!r}.")
    if len(bundles) > 1:
        raise InvalidInput(
            f"{len(bundles)} bundles begin with {digest!r}: give more of the digest.", field="bundle"
        )
    return bundles[0]
