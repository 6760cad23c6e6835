"""The services of training: coins, datasets, runs, bundles and estimates."""

from training.services.bundles import find_bundle
from training.services.candle_checks import (
    CandlesNotPassed,
    format_verdict,
    list_datasets_refused_for,
    list_withdrawn_peers,
    load_check_results,
    load_checks,
    require_passed,
    sort_worst_first,
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
    build_recipe,
    cancel_run,
    find_run,
    launch_run,
    open_budget,
    relaunch,
    repeat,
    require_trainable,
)

__all__ = [
    "CandlesNotPassed",
    "Estimate",
    "ImportedModel",
    "build_recipe",
    "cancel_run",
    "ensure_coins",
    "estimate",
    "fetch_candles",
    "find_bundle",
    "find_coin",
    "find_dataset",
    "find_run",
    "format_verdict",
    "import_candles",
    "import_model",
    "latest_dataset",
    "launch_run",
    "list_datasets_refused_for",
    "list_withdrawn_peers",
    "load_check_results",
    "load_checks",
    "open_budget",
    "read_model_file",
    "relaunch",
    "repeat",
    "require_passed",
    "require_trainable",
    "simulate_candles",
    "sort_worst_first",
]
