"""What a person or a program asks of training: coins, datasets, runs, and what a launch would take."""

from training.services.bundles import find_bundle
from training.services.candle_checks import (
    CandlesUnsound,
    against,
    checks_of,
    document_of,
    judged,
    refused_beside,
    require_sound,
    verdict_sentence,
    withdrawn_peers,
)
from training.services.coins import ensure_coins, find_coin
from training.services.datasets import (
    fetch_candles,
    find_dataset,
    import_candles,
    latest_dataset,
    simulate_candles,
)
from training.services.estimates import Estimate, estimate
from training.services.imported_models import ImportedModel, import_model, read_model_file
from training.services.runs import (
    cancel_run,
    find_run,
    launch_run,
    open_budget,
    plan,
    relaunch,
    repeat,
    require_trainable,
)

__all__ = [
    "CandlesUnsound",
    "Estimate",
    "ImportedModel",
    "against",
    "cancel_run",
    "checks_of",
    "document_of",
    "ensure_coins",
    "estimate",
    "fetch_candles",
    "find_bundle",
    "find_coin",
    "find_dataset",
    "find_run",
    "import_candles",
    "import_model",
    "judged",
    "latest_dataset",
    "launch_run",
    "open_budget",
    "plan",
    "read_model_file",
    "refused_beside",
    "relaunch",
    "repeat",
    "require_sound",
    "require_trainable",
    "simulate_candles",
    "verdict_sentence",
    "withdrawn_peers",
]
