"""Graphs that a recipe of a package could leave: read, tried and measured by the service as after a fit in the sandbox."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlcore.bundle.format import MODEL_FILE, SCALER_FILE, WEIGHTS_FILE
from mlcore.bundle.writer import write_bundle
from mlcore.data import candles
from mlcore.fitting.checkpoint import EpochReport
from mlcore.fitting.installed import GRAPH_FILE, InstalledRecipe, write_rows
from mlcore.fitting.prepared import Trained
from mlcore.importers import installed_recipe
from tests.faults import declared_faults, file_faults
from tests.faults.bundle_factory import SEED, BundleFactory, Case

OWN = InstalledRecipe.parse("own", "crpbot-recipe-own==1", {"inputs": ["relative72"], "parameters": {}})


def healthy(factory: BundleFactory) -> Case:
    """A recipe that leaves the network of the good bundle: it must pass."""
    return _fitted(factory, (factory.good.bundle.folder / MODEL_FILE).read_bytes())


def of(plant: Callable[[BundleFactory], Case]) -> Callable[[BundleFactory], Case]:
    """The graph of another fault, as a recipe's."""

    def planted(factory: BundleFactory) -> Case:
        return _fitted(factory, (plant(factory).folder / MODEL_FILE).read_bytes())

    return planted


logits_far_from_zero = of(file_faults.logits_far_from_zero)
reads_the_next_row_of_its_batch = of(file_faults.looks_ahead_through_its_batch)
memorised_its_stop_rows = of(declared_faults.memorised(lambda rows: rows.split.stop, is_fresh=True))
not_a_number_that_no_row_reaches = of(declared_faults.not_a_number_that_no_row_reaches)


def _fitted(factory: BundleFactory, graph: bytes) -> Case:
    """The bundle that the worker writes for this graph, with the figures that it computes itself."""
    prepared = factory.good.prepared
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, prepared, weighs_classes=True)
        (folder / GRAPH_FILE).write_bytes(graph)
        figures = installed_recipe.finish({"schema": OWN.schema, "parameters": {}, "seed": SEED}, folder)
        names = (MODEL_FILE, WEIGHTS_FILE, SCALER_FILE)
        payload = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    report = EpochReport(1, 1, **figures, seconds=1.0, rows_per_second=1.0, is_best=True)
    trained = Trained({}, prepared, OWN, SEED, [report], best_epoch=1, device="cpu", payload=payload)
    made = write_bundle(
        factory.create_path(),
        trained,
        coin="BTC",
        dataset_digest=candles.compute_digest(factory.good.frame),
        simulated=False,
        code_version="faults",
    )
    return Case(made.folder, made.digest, factory.good.frame, factory.good.baseline)
