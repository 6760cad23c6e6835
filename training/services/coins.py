"""The coins the bot trades."""

from accounts import names
from audit import services as audit
from common.errors import NotFound
from training.models import Coin

FIRST_COINS = {"BTC": "Bitcoin", "ETH": "Ethereum", "SOL": "Solana"}


@audit.locked()
def ensure_coins() -> None:
    """Create the first coins when there are none."""
    if not Coin.objects.exists():
        Coin.objects.bulk_create(Coin(symbol=symbol, name=name) for symbol, name in FIRST_COINS.items())


def find_coin(symbol: str) -> Coin:
    """Raises NotFound, naming the coins there are."""
    coin = Coin.objects.filter(symbol=names.normalize(symbol).upper()).first()
    if coin is None:
        known = ", ".join(Coin.objects.values_list("symbol", flat=True))
        raise NotFound(f"There is no coin {symbol!r}; there are {known}.")
    return coin
