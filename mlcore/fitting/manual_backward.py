"""An epoch of updates, forward and backward written out: the same arithmetic as autograd, without its overhead.

At 64 rows a step of this network is some forty small operations; recording and replaying them costs several times
the matrix products themselves. The kernels are torch's own, and a test holds every gradient against autograd's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlcore.fitting.network import Network

DropoutMasks = Callable[[int], list[Tensor | None]]
"""rows → for each hidden layer float [rows, width]: 0 where dropped, 1 / (1 − share) elsewhere; None: all kept."""

WIDTHS = (256, 128, 64)
_BETAS, _EPS = (0.9, 0.999), 1e-8
"""Adam's, as `torch.optim.Adam` has them by default."""


class SmoothedCrossEntropy:
    """Cross-entropy with class weights and label smoothing, as `nn.CrossEntropyLoss` defines it.

    Its sum is −Σ T·log p over the classes, with a row T of `table` for each label; the mean divides by the weights of
    the labels.
    """

    def __init__(self, class_weights: Tensor, label_smoothing: float) -> None:
        k = len(class_weights)
        spread = label_smoothing / k * class_weights.expand(k, k)
        self.table = (1 - label_smoothing) * torch.diag(class_weights) + spread  # [3, 3]
        self.weights = class_weights

    def targets(self, labels: Tensor) -> "Targets":
        return Targets(self.table[labels], self.weights[labels])


@dataclass(frozen=True)
class Targets:
    """What the loss wants of each row."""

    rows: Tensor
    """[n, 3]."""
    weights: Tensor
    """[n]: the class weight of each label."""

    def in_batches(self, size: int) -> tuple[Tensor, Tensor]:
        """[n, 3] and [n, 1]: the rows below 0 and their sums, over the weight of the batch that each row is in."""
        sums = functional.pad(self.weights, (0, -len(self.weights) % size)).view(-1, size).sum(1)
        rows = self.rows / sums.repeat_interleave(size)[: len(self.rows), None]
        return -rows, rows.sum(1, keepdim=True)

    def mean_loss(self, log_shares: Tensor) -> Tensor:
        return -(self.rows * log_shares).sum() / self.weights.sum()


class ManualTrainer:
    """Adam's updates of a network, whose parameters become views of one flat tensor."""

    def __init__(self, network: Network, learning_rate: float) -> None:
        self.flat, self.slopes = _flattened(list(network.parameters()))
        self.learning_rate = learning_rate
        self.moments = {name: torch.zeros_like(self.flat) for name in ("exp_avg", "exp_avg_sq")}
        self.moments["step"] = torch.zeros((), device=self.flat.device)
        linears, norms = (network.fc1, network.fc2, network.fc3), (network.bn1, network.bn2, network.bn3)
        self.blocks = [_Block(_Linear(linear), norm) for linear, norm in zip(linears, norms, strict=True)]
        self.head = _Linear(network.fc4)

    @torch.no_grad()
    def epoch(self, x: Tensor, targets: Targets, batch_size: int, keep: DropoutMasks) -> Tensor:
        """One step a batch on rows x [n, 72] in their order. The mean loss, left on the device.

        No batch may be of a single row: BatchNorm has no variance of one.
        """
        below, mass = targets.in_batches(batch_size)
        log_shares = torch.empty_like(below)
        batches = [tensor.split(batch_size) for tensor in (x, below, mass, log_shares)]
        for rows, below_rows, mass_rows, out in zip(*batches, strict=True):
            self._backward(self._forward(rows, keep(len(rows)), out), below_rows, mass_rows)
            self._step()
        for block in self.blocks:
            block.count(len(batches[0]))
        return targets.mean_loss(log_shares)

    def _forward(self, x: Tensor, kept: list[Tensor | None], out: Tensor) -> Tensor:
        for block, mask in zip(self.blocks, kept, strict=True):
            x = block.forward(x, mask)
        return torch.log_softmax(self.head.forward(x), dim=1, out=out)

    def _backward(self, log_shares: Tensor, below: Tensor, mass: Tensor) -> None:
        """Leaves the gradient of the batch's mean loss in every parameter's `grad`."""
        slope = torch.addcmul(below, log_shares.exp(), mass)  # [n, 3]
        self.head.backward(slope)
        after = self.head
        for block in self.blocks[::-1]:
            slope = block.backward(slope @ after.weight)
            after = block.linear

    def _step(self) -> None:
        """What `Adam(fused=True).step` comes down to; its bookkeeping takes longer than the arithmetic."""
        self.moments["step"] += 1
        torch._fused_adam_(
            [self.flat],
            [self.slopes],
            [self.moments["exp_avg"]],
            [self.moments["exp_avg_sq"]],
            [],
            [self.moments["step"]],
            lr=self.learning_rate,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=0.0,
            eps=_EPS,
            amsgrad=False,
            maximize=False,
        )


class _Linear:
    """A linear layer's tensors, looked up once, and its input, which the backward pass needs again."""

    def __init__(self, linear: nn.Linear) -> None:
        assert linear.weight.grad is not None and linear.bias.grad is not None
        self.weight, self.bias = linear.weight.detach(), linear.bias.detach()
        self.turned = self.weight.t()
        self.weight_slope, self.bias_slope = linear.weight.grad, linear.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return torch.addmm(self.bias, x, self.turned)

    def backward(self, slope: Tensor) -> None:
        torch.mm(slope.t(), self.x, out=self.weight_slope)
        torch.sum(slope, dim=0, out=self.bias_slope)


class _Block:
    """Linear → ReLU → BatchNorm → Dropout, with what its backward pass needs kept from the forward one."""

    def __init__(self, linear: _Linear, norm: nn.BatchNorm1d) -> None:
        assert norm.weight.grad is not None and norm.bias.grad is not None and norm.momentum is not None
        self.linear, self.norm, self.momentum, self.eps = linear, norm, norm.momentum, norm.eps
        self.weight, self.bias = norm.weight.detach(), norm.bias.detach()
        self.weight_slope, self.bias_slope = norm.weight.grad, norm.bias.grad
        self.running = norm.running_mean, norm.running_var

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        self.active, self.kept = self.linear.forward(x).relu_(), kept
        out, self.mean, self.deviation = torch.native_batch_norm(
            self.active, self.weight, self.bias, *self.running, True, self.momentum, self.eps
        )
        return out if kept is None else out.mul_(kept)

    def backward(self, slope: Tensor) -> Tensor:
        """From the slope after dropout [n, width] to the one at the linear layer's output; BatchNorm's on the way."""
        if self.kept is not None:
            slope = slope.mul_(self.kept)
        slope, weight_slope, bias_slope = torch.ops.aten.native_batch_norm_backward(
            slope,
            self.active,
            self.weight,
            *self.running,
            self.mean,
            self.deviation,
            True,
            self.eps,
            (True, True, True),
        )
        self.weight_slope.copy_(weight_slope)
        self.bias_slope.copy_(bias_slope)
        slope = torch.ops.aten.threshold_backward(slope, self.active, 0)
        self.linear.backward(slope)
        return slope

    def count(self, batches: int) -> None:
        assert self.norm.num_batches_tracked is not None
        self.norm.num_batches_tracked.add_(batches)


def _flattened(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """One tensor of all parameters and one of their gradients; the parameters become views of them."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    slopes = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat[start:stop].view_as(parameter)
        parameter.grad = slopes[start:stop].view_as(parameter)
        start = stop
    return flat, slopes


def build_dropout_masks(seed: Sequence[int], shares: Sequence[float], device: str) -> DropoutMasks:
    """Masks for one epoch, from its own seed. Drawing them with torch takes a fifth of a step on a CPU; sixteen random
    bits a number, compared with a threshold, take a fraction of that."""
    layers = list(zip(WIDTHS, shares, strict=True))
    if device != "cpu":
        return lambda rows: [_bernoulli(rows, width, share, device) for width, share in layers]
    draw = np.random.SFC64(np.random.SeedSequence(seed)).random_raw

    def mask(rows: int, width: int, share: float) -> Tensor | None:
        if not share:
            return None
        drawn = draw(-(-rows * width // 4)).view(np.uint16)[: rows * width].reshape(rows, width)
        return torch.from_numpy(np.multiply(drawn >= round(share * 65536), np.float32(1 / (1 - share))))

    return lambda rows: [mask(rows, width, share) for width, share in layers]


def _bernoulli(rows: int, width: int, share: float, device: str) -> Tensor | None:
    if not share:
        return None
    return torch.empty(rows, width, device=device).bernoulli_(1 - share).div_(1 - share)
