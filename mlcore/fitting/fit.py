"""The training loop, with a report and a checkpoint after every epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mlcore.constants import CLASSES
from mlcore.errors import MAX_SEED, MlcoreError, check_bounds
from mlcore.fitting.checkpoint import EpochReport, OnEpoch, Progress, pack, unpack
from mlcore.fitting.flat import fit_flat
from mlcore.fitting.manual_backward import ManualTrainer, SmoothedCrossEntropy, build_dropout_masks
from mlcore.fitting.network import Network, build_network
from mlcore.fitting.prepared import Prepared, Trained, prepare
from mlcore.fitting.recipes import Recipe

__all__ = ["EpochReport", "Prepared", "Trained", "fit", "prepare", "resolve_device"]


class Diverged(MlcoreError):
    """The loss is not finite any more."""


def fit(
    prepared: Prepared,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "auto",
    on_epoch: OnEpoch | None = None,
    resume_from: bytes | None = None,
) -> Trained:
    """Trains by the recipe. On a CPU, equal arguments give the same weights bit for bit, resumed in between or not.

    `on_epoch` gets each epoch's report and a checkpoint to resume from. An exception that it raises stops the fit and
    passes through. Raises ResumeRefused for a checkpoint that is damaged or of another fit, Diverged for a loss that
    is not finite, InvalidParameter for a negative seed.
    """
    check_bounds("seed", seed, 0, MAX_SEED)
    if recipe.network == "logistic":
        # Imported here because scikit-learn takes a second to import.
        from mlcore.fitting.logistic import fit_logistic

        return fit_logistic(prepared, recipe, seed=seed, on_epoch=on_epoch)
    if recipe.network == "flat":
        return fit_flat(prepared, recipe, seed=seed, on_epoch=on_epoch)
    chosen = resolve_device(device)
    with _isolate_torch_state(chosen):
        training = _Training(prepared, recipe, seed, chosen)
        if resume_from is not None:
            training.restore(resume_from)
        while not training.is_finished:
            report = training.run_epoch()
            if on_epoch is not None:
                on_epoch(report, training.build_checkpoint())
        return training.build_result()


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda"; "auto" is cuda if there is one. Raises MlcoreError for a cuda that is missing."""
    if device not in ("auto", "cpu", "cuda"):
        raise MlcoreError(f"device {device!r}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise MlcoreError("device cuda: this machine has none that torch can use; choose auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


@contextmanager
def _isolate_torch_state(device: str) -> Iterator[None]:
    """Uses one thread, which is fastest for small matrices, and restores torch's threads and random state afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)


class _Training:
    """The state of a fit: network, optimizer, the best weights so far, and the rows, all on the device."""

    def __init__(self, prepared: Prepared, recipe: Recipe, seed: int, device: str) -> None:
        assert recipe.epochs and recipe.batch_size and recipe.learning_rate
        assert recipe.dropout and recipe.hidden_widths
        self.prepared, self.recipe, self.seed, self.device = prepared, recipe, seed, device
        self.epochs, self.batch_size = recipe.epochs, recipe.batch_size
        self.fit_rows = self._load_to_device(*prepared.fit)
        self.stop_rows = self._load_to_device(*prepared.stop)
        widths = (self.fit_rows[0].shape[1], *recipe.hidden_widths, len(CLASSES))
        self.network: Network = build_network(recipe.dropout, seed, widths).to(device)
        self.trainer = ManualTrainer(self.network, recipe.learning_rate)
        weights = torch.from_numpy(prepared.class_weights) if recipe.weighs_classes else torch.ones(3)
        self.smoothing = recipe.label_smoothing or 0.0
        self.loss = SmoothedCrossEntropy(weights.to(device), self.smoothing)
        self.fingerprint = prepared.compute_fingerprint(recipe, seed)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def _load_to_device(self, features: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(features).to(self.device), torch.from_numpy(labels).to(self.device)

    @property
    def is_finished(self) -> bool:
        done, patience = self.progress.epochs_done, self.recipe.patience
        return done >= self.epochs or (patience is not None and done - self.progress.best_epoch >= patience)

    def run_epoch(self) -> EpochReport:
        number = self.progress.epochs_done + 1
        start = perf_counter()
        train_loss = self._train(number)
        validation_loss, accuracy = self._validate()
        seconds = perf_counter() - start
        if not np.isfinite([train_loss, validation_loss]).all():
            raise Diverged(f"the loss is {train_loss} after epoch {number}: lower the learning rate")
        is_best = validation_loss < self.progress.best_loss
        rows_per_second = len(self.fit_rows[1]) / seconds
        report = EpochReport(
            number, self.epochs, train_loss, validation_loss, accuracy, seconds, rows_per_second, is_best
        )
        self.progress.reports.append(report)
        if is_best:
            self.progress.best_epoch = number
            self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return report

    def _train(self, number: int) -> float:
        """Mean loss over the epoch. Its random numbers depend on seed and number, so a resumed fit needs no state."""
        draw = np.random.SeedSequence([self.seed, number])
        torch.manual_seed(int(draw.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        draw_masks = build_dropout_masks(
            [self.seed, number, 1], self.recipe.dropout or (), self.device, self.recipe.hidden_widths or ()
        )
        features, labels = self.fit_rows
        order = torch.randperm(len(labels))
        if len(labels) % self.batch_size == 1:  # the last batch would have one row, and BatchNorm needs two
            order = order[:-1]
        order = order.to(self.device)
        rows, labels = features.index_select(0, order), labels[order]
        return float(self.trainer.train_epoch(rows, labels, self.loss, self.batch_size, draw_masks))

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        self.network.eval()
        features, labels = self.stop_rows
        logits = self.network(features)
        loss = cross_entropy(logits, labels, self.loss.weights, label_smoothing=self.smoothing)
        return float(loss), float((logits.argmax(1) == labels).float().mean())

    def build_checkpoint(self) -> bytes:
        tensors = {f"weights.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"adam.0.{name}": tensor for name, tensor in self.trainer.moments.items()}
        return pack(self.fingerprint, self.progress, _to_arrays(tensors))

    def restore(self, data: bytes) -> None:
        self.progress, arrays = unpack(data, self.fingerprint)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "adam": {}}
        for name, array in arrays.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = torch.from_numpy(array.copy())
        self.network.load_state_dict(groups["weights"])
        self.best = {name: tensor.to(self.device) for name, tensor in groups["best"].items()}
        for name, tensor in self.trainer.moments.items():
            tensor.copy_(groups["adam"][f"0.{name}"])

    def build_result(self) -> Trained:
        is_best = self.recipe.restores_best
        return Trained(
            weights=_to_arrays(self.best if is_best else self.network.state_dict()),
            prepared=self.prepared,
            recipe=self.recipe,
            seed=self.seed,
            epochs=self.progress.reports,
            best_epoch=self.progress.best_epoch if is_best else self.progress.epochs_done,
            device=self.device,
        )


def _to_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
