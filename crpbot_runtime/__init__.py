"""The bot's client: which model may I trust right now, and what does it predict?

    from crpbot_runtime import Client

    with Client("https://gate.example", token, public_key, "/var/lib/bot/models") as client:
        client.refresh()
        decision = client.predict("BTC", candles)

Two classes of errors are raised: `ClientError`, and `MlcoreError` for candles that cannot be decided on. No Django, no
torch, no scikit-learn: NumPy, polars, onnxruntime, httpx, securesystemslib and `mlcore`'s candles, features and predictor.
"""

from crpbot_runtime.client import AsyncClient, Client
from crpbot_runtime.decision import Active, Decision
from crpbot_runtime.errors import (
    CacheFailed,
    ClientError,
    EnvelopeRefused,
    Misconfigured,
    NotAuthorised,
    Refused,
    ServiceUnavailable,
    SignedInFuture,
    SnapshotExpired,
    UnknownCoin,
)
from crpbot_runtime.frames import read_candles
from crpbot_runtime.version import VERSION as __version__
from mlcore.errors import CandlesRefused, FeaturesRefused, MlcoreError, NotEnoughBars

__all__ = [
    "Active",
    "AsyncClient",
    "CacheFailed",
    "CandlesRefused",
    "Client",
    "ClientError",
    "Decision",
    "EnvelopeRefused",
    "FeaturesRefused",
    "Misconfigured",
    "MlcoreError",
    "NotAuthorised",
    "NotEnoughBars",
    "Refused",
    "ServiceUnavailable",
    "SignedInFuture",
    "SnapshotExpired",
    "UnknownCoin",
    "__version__",
    "read_candles",
]
