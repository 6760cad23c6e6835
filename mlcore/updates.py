"""One update of the network, forward and backward written out: the same arithmetic as autograd, without its overhead.

At 64 rows a step of this network is some forty small operations; recording and replaying them costs several times
the matrix products themselves. The kernels are torch's own, and a test holds every gradient against autograd's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mlcore.networks import Network

Keep = Callable[[int, int, float], Tensor]
"""(rows, width, share to drop) → float [rows, width]: 0 where dropped, 1 / (1 − share) elsewhere."""


class Objective:
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
        rows = self.table[labels]
        return Targets(rows, rows.sum(1, keepdim=True), self.weights[labels])


@dataclass(frozen=True)
class Targets:
    """What the loss wants of each row."""

    rows: Tensor
    """[n, 3]."""
    mass: Tensor
    """[n, 1]: sum of each row."""
    weights: Tensor
    """[n]: the class weight of each label."""

    def __getitem__(self, rows: Tensor | slice) -> "Targets":
        return Targets(self.rows[rows], self.mass[rows], self.weights[rows])


class Updates:
    """Adam's updates of a network, whose parameters become views of one flat tensor."""

    def __init__(self, network: Network, learning_rate: float, dropout: Sequence[float]) -> None:
        self.flat = _flattened(list(network.parameters()))
        self.optimizer = torch.optim.Adam([self.flat], lr=learning_rate, fused=True)
        linears = (network.fc1, network.fc2, network.fc3)
        norms = (network.bn1, network.bn2, network.bn3)
        self.blocks = [_Block(*parts) for parts in zip(linears, norms, dropout, strict=True)]
        self.head = network.fc4

    def update(self, x: Tensor, targets: Targets, keep: Keep) -> Tensor:
        """One step on rows x [n, 72], n ≥ 2. The loss summed over them, left on the device."""
        loss = self.slopes(x, targets, keep)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def slopes(self, x: Tensor, targets: Targets, keep: Keep) -> Tensor:
        """Leaves the gradient of the mean loss in every parameter's `grad`; gives the summed loss."""
        inputs = [x]
        for block in self.blocks:
            inputs.append(block.forward(inputs[-1], keep))
        log_shares = torch.log_softmax(torch.addmm(self.head.bias, inputs[-1], self.head.weight.t()), dim=1)
        slope = log_shares.exp().mul_(targets.mass).sub_(targets.rows).div_(targets.weights.sum())  # [n, 3]
        _linear_slopes(self.head, inputs.pop(), slope)
        slope = slope @ self.head.weight
        for block in self.blocks[::-1]:
            at_linear = block.backward(slope)
            _linear_slopes(block.linear, inputs.pop(), at_linear)
            if inputs:  # the features themselves need no gradient
                slope = at_linear @ block.linear.weight
        return -(targets.rows * log_shares).sum()


class _Block:
    """Linear → ReLU → BatchNorm → Dropout, with what its backward pass needs kept from the forward one."""

    def __init__(self, linear: nn.Linear, norm: nn.BatchNorm1d, dropped: float) -> None:
        self.linear, self.norm, self.dropped = linear, norm, dropped

    def forward(self, x: Tensor, keep: Keep) -> Tensor:
        norm = self.norm
        assert norm.num_batches_tracked is not None and norm.momentum is not None
        self.active = torch.addmm(self.linear.bias, x, self.linear.weight.t()).relu_()
        out, self.mean, self.deviation = torch.native_batch_norm(
            self.active,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            True,
            norm.momentum,
            norm.eps,
        )
        norm.num_batches_tracked.add_(1)
        if self.dropped:
            self.kept = keep(len(x), self.linear.out_features, self.dropped)
            out.mul_(self.kept)
        return out

    def backward(self, slope: Tensor) -> Tensor:
        """From the slope after dropout [n, width] to the one at the linear layer's output; BatchNorm's on the way."""
        norm = self.norm
        if self.dropped:
            slope = slope.mul_(self.kept)
        slope, weight_slope, bias_slope = torch.ops.aten.native_batch_norm_backward(
            slope,
            self.active,
            norm.weight,
            norm.running_mean,
            norm.running_var,
            self.mean,
            self.deviation,
            True,
            norm.eps,
            [True, True, True],
        )
        assert norm.weight.grad is not None and norm.bias.grad is not None
        norm.weight.grad.copy_(weight_slope)
        norm.bias.grad.copy_(bias_slope)
        return torch.ops.aten.threshold_backward(slope, self.active, 0)


def _linear_slopes(linear: nn.Linear, x: Tensor, slope: Tensor) -> None:
    assert linear.weight.grad is not None and linear.bias.grad is not None
    torch.mm(slope.t(), x, out=linear.weight.grad)
    torch.sum(slope, dim=0, out=linear.bias.grad)


def _flattened(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor of all parameters and one of their gradients; the parameters become views of them."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = flat[start:stop].view_as(parameter)
        parameter.grad = flat.grad[start:stop].view_as(parameter)
        start = stop
    return flat


def dropout_masks(seed: Sequence[int], device: str) -> Keep:
    """Masks for one epoch, from its own seed. Drawing them with torch takes a fifth of a step on a CPU; sixteen random
    bits a number, compared with a threshold, take a fraction of that."""
    if device != "cpu":
        return lambda rows, width, share: (
            torch.empty(rows, width, device=device).bernoulli_(1 - share) / (1 - share)
        )
    bits = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed)))

    def keep(rows: int, width: int, share: float) -> Tensor:
        drawn = np.frombuffer(bits.bytes(2 * rows * width), "<u2").reshape(rows, width)
        return torch.from_numpy(np.multiply(drawn >= round(share * 65536), np.float32(1 / (1 - share))))

    return keep
