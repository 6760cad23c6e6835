"""What a bot installs: which model may I trust right now, and what does it say?

    from runtime import Client

    with Client("https://gate.example", token, public_key, "/var/lib/bot/models") as client:
        client.refresh()
        decision = client.predict("BTC", candles)

No Django, no torch, no scikit-learn: NumPy, polars, onnxruntime, httpx, securesystemslib and `mlcore`'s candles,
features and predictor.
"""

from runtime.client import AsyncClient, Client
from runtime.decision import Active, Decision
from runtime.errors import (
    AnswerExpired,
    CacheFailed,
    ClientError,
    EnvelopeRefused,
    Misconfigured,
    NotAuthorised,
    Refused,
    ServiceUnavailable,
    UnknownCoin,
)
from runtime.version import VERSION as __version__

__all__ = [
    "Active",
    "AnswerExpired",
    "AsyncClient",
    "CacheFailed",
    "Client",
    "ClientError",
    "Decision",
    "EnvelopeRefused",
    "Misconfigured",
    "NotAuthorised",
    "Refused",
    "ServiceUnavailable",
    "UnknownCoin",
    "__version__",
]
