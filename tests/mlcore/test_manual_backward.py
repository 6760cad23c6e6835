"""The update written out by hand is the one autograd would make."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlcore.fitting.manual_backward import ManualTrainer, SmoothedCrossEntropy, build_dropout_masks
from mlcore.fitting.network import Network, build_network

pytestmark = pytest.mark.slow

WEIGHTS = torch.tensor([0.9, 1.3, 0.8])
ROWS, LABELS = torch.randn(65, 72, generator=torch.Generator().manual_seed(1)), torch.arange(65) % 3


class FixedMask(nn.Module):
    """Dropout with a mask given from outside, so that both ways drop the same."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def masks(dropout: Sequence[float], seed: int) -> list[Any]:
    kept = build_dropout_masks([seed], dropout, "cpu")(len(ROWS))
    return [nn.Identity() if mask is None else FixedMask(mask) for mask in kept]


def train_with_autograd(dropout: Sequence[float], smoothing: float, steps: int) -> Network:
    network = build_network(dropout, seed=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss = nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=smoothing)
    for step in range(steps):
        for number, mask in enumerate(masks(dropout, step), start=1):
            setattr(network, f"dropout{number}", mask)
        optimizer.zero_grad()
        loss(network(ROWS), LABELS).backward()
        optimizer.step()
    return network


def train_manually(dropout: Sequence[float], smoothing: float, steps: int) -> Network:
    network = build_network(dropout, seed=3)
    trainer = ManualTrainer(network, 1e-3)
    loss = SmoothedCrossEntropy(WEIGHTS, smoothing)
    for step in range(steps):
        trainer.train_epoch(ROWS, LABELS, loss, len(ROWS), build_dropout_masks([step], dropout, "cpu"))
    return network


@pytest.mark.parametrize("smoothing", [0.0, 0.15], ids=["no smoothing", "smoothing"])
@pytest.mark.parametrize("dropout", [(0.0, 0.0, 0.0), (0.3, 0.3, 0.2)], ids=["no dropout", "dropout"])
def test_every_gradient_is_autograds(dropout: Sequence[float], smoothing: float) -> None:
    reference, ours = (
        train_with_autograd(dropout, smoothing, steps=1),
        train_manually(dropout, smoothing, steps=1),
    )
    for (name, theirs), mine in zip(reference.named_parameters(), ours.parameters(), strict=True):
        assert theirs.grad is not None and mine.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-7), name


def test_after_many_steps_network_and_buffers_are_still_autograds() -> None:
    reference, ours = (
        train_with_autograd((0.3, 0.3, 0.2), 0.15, steps=20),
        train_manually((0.3, 0.3, 0.2), 0.15, steps=20),
    )
    for name, theirs in reference.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], theirs, rtol=1e-3, atol=1e-5), name


def test_the_loss_is_that_of_torch() -> None:
    network = build_network((0.0, 0.0, 0.0), seed=3)
    expected = nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.15)(network(ROWS), LABELS)
    objective, keep_all = (
        SmoothedCrossEntropy(WEIGHTS, 0.15),
        build_dropout_masks([0], (0.0, 0.0, 0.0), "cpu"),
    )
    loss = ManualTrainer(network, 1e-3).train_epoch(ROWS, LABELS, objective, len(ROWS), keep_all)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_an_epoch_is_its_batches_one_after_the_other() -> None:
    """The last of them shorter, and each divided by its own weight."""
    whole, split = build_network((0.3, 0.3, 0.2), seed=3), build_network((0.3, 0.3, 0.2), seed=3)
    objective, dropout = SmoothedCrossEntropy(WEIGHTS, 0.15), (0.3, 0.3, 0.2)
    loss = ManualTrainer(whole, 1e-3).train_epoch(
        ROWS, LABELS, objective, 24, build_dropout_masks([1], dropout, "cpu")
    )
    keep, trainer, total = build_dropout_masks([1], dropout, "cpu"), ManualTrainer(split, 1e-3), 0.0
    for rows, labels in zip(ROWS.split(24), LABELS.split(24), strict=True):
        loss_of_batch = trainer.train_epoch(rows, labels, objective, len(rows), keep)
        total += float(loss_of_batch * WEIGHTS[labels].sum())
    assert float(loss) == pytest.approx(total / float(WEIGHTS[LABELS].sum()), rel=1e-6)
    for name, theirs in split.state_dict().items():
        assert torch.allclose(whole.state_dict()[name], theirs, rtol=1e-5, atol=1e-7), name


def test_masks_drop_their_share_and_keep_the_mean() -> None:
    mask, _, none = build_dropout_masks([5], (0.3, 0.3, 0.0), "cpu")(1_000)
    assert mask is not None and none is None
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(mask.mean()) == pytest.approx(1, abs=0.01)


def test_masks_are_drawn_each_time_and_repeat_with_the_seed() -> None:
    shares = (0.3, 0.3, 0.2)
    first, again = build_dropout_masks([1, 2], shares, "cpu"), build_dropout_masks([1, 2], shares, "cpu")
    one, two, repeated = first(63), first(63), again(63)
    for a, b, c in zip(one, two, repeated, strict=True):
        assert a is not None and b is not None and c is not None
        assert not torch.equal(a, b)
        assert torch.equal(a, c)
