"""The forward and backward pass of an epoch written out: the arithmetic of autograd without its overhead.

With 64 rows per step, this network needs some forty small operations. To record and replay them costs several times the
matrix products themselves. The kernels are torch's own, and a test compares every gradient with autograd's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlcore.constants import HIDDEN_WIDTHS
from mlcore.fitting.network import Network

DropoutMasks = Callable[[int], list[Tensor | None]]
"""rows → for each hidden layer float [rows, width]: 0 if dropped, else 1 / (1 − rate); None for a rate of 0."""

_ADAM: dict[str, Any] = {
    "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": False
}  # fmt: skip
"""The defaults of `torch.optim.Adam`."""


class SmoothedCrossEntropy:
    """Cross-entropy with class weights and label smoothing, as `nn.CrossEntropyLoss` defines it.

    The sum of the loss is −Σ T·log p over the classes, with a row T of `table` for each label. The mean divides it by
    the class weights of the labels.
    """

    def __init__(self, class_weights: Tensor, label_smoothing: float) -> None:
        k = len(class_weights)
        spread = label_smoothing / k * class_weights.expand(k, k)
        self.table = (1 - label_smoothing) * torch.diag(class_weights) + spread  # [3, 3]
        self.weights = class_weights

    def build_targets(self, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """[n, 3] negative targets and [n, 1] their sums, each divided by the weight of the row's batch."""
        weights = self.weights[labels]
        sums = functional.pad(weights, (0, -len(weights) % batch_size)).view(-1, batch_size).sum(1)
        rows = self.table[labels] / sums.repeat_interleave(batch_size)[: len(labels), None]
        return -rows, rows.sum(1, keepdim=True)

    def compute_mean(self, labels: Tensor, log_probabilities: Tensor) -> Tensor:
        return -(self.table[labels] * log_probabilities).sum() / self.weights[labels].sum()


class ManualTrainer:
    """Trains a network with Adam. The network's parameters become views of one flat tensor."""

    def __init__(self, network: Network, learning_rate: float) -> None:
        self.flat, self.gradients = _flatten(list(network.parameters()))
        self.learning_rate = learning_rate
        self.moments = {name: torch.zeros_like(self.flat) for name in ("exp_avg", "exp_avg_sq")}
        self.moments["step"] = torch.zeros((), device=self.flat.device)
        linears, norms = (network.fc1, network.fc2, network.fc3), (network.bn1, network.bn2, network.bn3)
        self.blocks = [_Block(_Linear(linear), norm) for linear, norm in zip(linears, norms, strict=True)]
        self.counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        self.head = _Linear(network.fc4)

    @torch.no_grad()
    def train_epoch(
        self, x: Tensor, labels: Tensor, loss: SmoothedCrossEntropy, batch_size: int, draw_masks: DropoutMasks
    ) -> Tensor:
        """One step per batch over rows x [n, 72] in their order. Returns the mean loss, on the device.

        No batch may have a single row: BatchNorm has no variance of one row.
        """
        negative_targets, target_sums = loss.build_targets(labels, batch_size)
        log_probabilities = torch.empty_like(negative_targets)
        tensors = (x, negative_targets, target_sums, log_probabilities)
        batches = [torch.split(tensor, batch_size) for tensor in tensors]
        for rows, negative, sums, out in zip(*batches, strict=True):
            self._backward(self._forward(rows, draw_masks(len(rows)), out), negative, sums)
            self._step()
        for counter in self.counters:
            counter.add_(len(batches[0]))
        return loss.compute_mean(labels, log_probabilities)

    def _forward(self, x: Tensor, masks: list[Tensor | None], out: Tensor) -> Tensor:
        for block, mask in zip(self.blocks, masks, strict=True):
            x = block.forward(x, mask)
        return torch.log_softmax(self.head.forward(x), dim=1, out=out)

    def _backward(self, log_probabilities: Tensor, negative_targets: Tensor, target_sums: Tensor) -> None:
        """Writes the gradient of the batch's mean loss to every parameter's `grad`."""
        gradient = torch.addcmul(negative_targets, log_probabilities.exp(), target_sums)  # [n, 3]
        self.head.backward(gradient)
        above = self.head
        for block in self.blocks[::-1]:
            gradient = block.backward(gradient @ above.weight)
            above = block.linear

    def _step(self) -> None:
        """The kernel of `Adam(fused=True).step`, whose bookkeeping takes longer than the arithmetic."""
        self.moments["step"] += 1
        means, squares, steps = ([self.moments[name]] for name in ("exp_avg", "exp_avg_sq", "step"))
        parameters, gradients = [self.flat], [self.gradients]
        torch._fused_adam_(parameters, gradients, means, squares, [], steps, lr=self.learning_rate, **_ADAM)


class _Linear:
    """A linear layer. It keeps its input for the backward pass."""

    def __init__(self, linear: nn.Linear) -> None:
        assert linear.weight.grad is not None and linear.bias.grad is not None
        self.weight, self.bias = linear.weight.detach(), linear.bias.detach()
        self.transposed = self.weight.t()
        self.weight_gradient, self.bias_gradient = linear.weight.grad, linear.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return torch.addmm(self.bias, x, self.transposed)

    def backward(self, gradient: Tensor) -> None:
        torch.mm(gradient.t(), self.x, out=self.weight_gradient)
        torch.sum(gradient, dim=0, out=self.bias_gradient)


class _Block:
    """Linear → ReLU → BatchNorm → Dropout. It keeps what its backward pass needs."""

    def __init__(self, linear: _Linear, norm: nn.BatchNorm1d) -> None:
        assert norm.weight.grad is not None and norm.bias.grad is not None and norm.momentum is not None
        self.linear, self.norm, self.momentum, self.eps = linear, norm, norm.momentum, norm.eps
        self.weight, self.bias = norm.weight.detach(), norm.bias.detach()
        self.weight_gradient, self.bias_gradient = norm.weight.grad, norm.bias.grad
        self.running = norm.running_mean, norm.running_var

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self.active, self.mask = self.linear.forward(x).relu_(), mask
        out, self.mean, self.deviation = torch.native_batch_norm(
            self.active, self.weight, self.bias, *self.running, True, self.momentum, self.eps
        )
        return out if mask is None else out.mul_(mask)

    def backward(self, gradient: Tensor) -> Tensor:
        """From the gradient after dropout [n, width] to that at the linear layer's output."""
        if self.mask is not None:
            gradient = gradient.mul_(self.mask)
        statistics = *self.running, self.mean, self.deviation
        gradient, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient, self.active, self.weight, *statistics, True, self.eps, (True, True, True)
        )
        self.weight_gradient.copy_(weight_gradient)
        self.bias_gradient.copy_(bias_gradient)
        gradient = torch.ops.aten.threshold_backward(gradient, self.active, 0)
        self.linear.backward(gradient)
        return gradient


def _flatten(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """One tensor of all parameters and one of their gradients; the parameters become views of them."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    gradients = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat[start:stop].view_as(parameter)
        parameter.grad = gradients[start:stop].view_as(parameter)
        start = stop
    return flat, gradients


def build_dropout_masks(
    seed: Sequence[int],
    rates: Sequence[float],
    device: str,
    hidden: Sequence[int] = HIDDEN_WIDTHS,
) -> DropoutMasks:
    """Draws the masks of one epoch from its own seed.

    On a CPU, torch needs a fifth of a step for this. Comparing sixteen random bits per value with a threshold takes a
    fraction of that.
    """
    layers = list(zip(hidden, rates, strict=True))
    draw = np.random.SFC64(np.random.SeedSequence(seed)).random_raw

    def draw_mask(rows: int, width: int, rate: float) -> Tensor | None:
        if not rate:
            return None
        if device != "cpu":
            return torch.empty(rows, width, device=device).bernoulli_(1 - rate).div_(1 - rate)
        bits = draw(-(-rows * width // 4)).view(np.uint16)[: rows * width].reshape(rows, width)
        return torch.from_numpy(np.multiply(bits >= round(rate * 65536), np.float32(1 / (1 - rate))))

    return lambda rows: [draw_mask(rows, width, rate) for width, rate in layers]
