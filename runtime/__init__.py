"""What a bot installs: which model may I trust right now, and what does it say?

    from runtime import Client

    with Client("https://gate.example", token, cache_dir="/var/lib/bot/models") as client:
        client.refresh()
        decision = client.predict("BTC", candles)

No Django, no torch, no scikit-learn: NumPy, polars, onnxruntime, httpx and `mlcore`'s candles, features and predictor.
"""

from runtime.client import Client
from runtime.decision import Active, Decision
from runtime.errors import (
    CacheFailed,
    ClientError,
    Misconfigured,
    NotAuthorised,
    Refused,
    ServiceUnavailable,
    UnknownCoin,
)

__all__ = [
    "Active",
    "CacheFailed",
    "Client",
    "ClientError",
    "Decision",
    "Misconfigured",
    "NotAuthorised",
    "Refused",
    "ServiceUnavailable",
    "UnknownCoin",
]
