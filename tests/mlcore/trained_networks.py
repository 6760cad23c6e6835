"""Helpers around trained networks: a long fit to interrupt, the torch network of a fit, its accuracy."""

import polars as pl
import torch

from mlcore.data import simulate
from mlcore.fitting.fit import Trained
from mlcore.fitting.network import Network
from mlcore.fitting.recipes import RECIPES

LONG_RECIPE = RECIPES["v7_fixed"].with_parameters(epochs=12, patience=12)


def simulate_long_market() -> pl.DataFrame:
    return simulate.simulate("ETH", 6_000, 1.2, seed=2)


def load_network(trained: Trained) -> Network:
    network = Network()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in trained.weights.items()})
    return network.eval()


def compute_gate_accuracy(trained: Trained) -> float:
    gate = trained.prepared.examples.split.gate
    rows, labels = (
        trained.scaler.transform(trained.prepared.examples.features[gate]),
        trained.prepared.labels[gate],
    )
    if trained.recipe.network == "logistic":
        logits = rows @ trained.weights["coef.weight"].T + trained.weights["coef.bias"]
    else:
        logits = load_network(trained)(torch.from_numpy(rows)).detach().numpy()
    return float((logits.argmax(axis=1) == labels).mean())
