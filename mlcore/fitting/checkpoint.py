"""The state of an unfinished fit as bytes: safetensors, never a pickle, with a hash that reveals damage."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mlcore.errors import ResumeRefused

_MAGIC = b"crpbot checkpoint 1\n"


@dataclass(frozen=True)
class EpochReport:
    """The figures of one finished epoch, for logs and pages."""

    number: int
    """From 1."""
    epochs: int
    """The maximum."""
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    rows_per_second: float
    is_best: bool


OnEpoch = Callable[[EpochReport, bytes], None]
"""Called with the report of each epoch and a checkpoint to resume from."""


@dataclass
class Progress:
    """The state of a fit between two epochs, without its tensors."""

    reports: list[EpochReport] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def epochs_done(self) -> int:
        return len(self.reports)

    @property
    def best_loss(self) -> float:
        return self.reports[self.best_epoch - 1].validation_loss if self.best_epoch else float("inf")


def pack(fingerprint: str, progress: Progress, tensors: dict[str, np.ndarray]) -> bytes:
    """An unfinished fit. No random state is needed: each epoch draws its own numbers from seed and epoch number."""
    state = {"fingerprint": fingerprint, **asdict(progress)}
    body = save(tensors, metadata={"state": json.dumps(state)})
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, fingerprint: str) -> tuple[Progress, dict[str, np.ndarray]]:
    """Raises ResumeRefused for damaged bytes, and for a checkpoint of another recipe, seed or dataset."""
    if not data.startswith(_MAGIC):
        raise ResumeRefused("not a checkpoint of this version; start the run again")
    start = len(_MAGIC) + hashlib.sha256().digest_size
    digest, body = data[len(_MAGIC) : start], data[start:]
    if hashlib.sha256(body).digest() != digest:
        raise ResumeRefused("the checkpoint is damaged: cut off or changed; start the run again")
    try:
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
        state = json.loads(header["state"])
        progress = Progress([EpochReport(**report) for report in state["reports"]], state["best_epoch"])
        tensors, found = load(body), state["fingerprint"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResumeRefused("the checkpoint cannot be read; start the run again") from error
    if found != fingerprint:
        raise ResumeRefused("the checkpoint is of another recipe, seed or dataset; start the run again")
    return progress, tensors
