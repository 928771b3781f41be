"""What follows a dense layer: batch norm, ReLU and dropout, in training as one function.

`model/_activate.c` does it in few passes each way where the compiled module was built (it is
optional: no compiler, no module); elsewhere the layers do it themselves. Tests hold the two equal,
but for which elements dropout zeroes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.tables import memory

try:
    from model import _activate
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True

_COMPILED_TYPES = (torch.float32, torch.bfloat16)
_SEEDS = 2**63 - 1


def activate(layers: Sequence[nn.Module], hidden: Tensor, passes: int = 1) -> Tensor:
    """`hidden` after batch norm, ReLU and dropout, in as many passes: `[passes * rows, width]`.

    Batch norm is computed once for all passes: the same rows twice have the same mean and variance.

    Args:
        layers: ReLU; before it batch norm or not, behind it dropout or not.
        hidden: `[rows, width]`.
        passes: how often the rows go through, each time with dropout of its own.
    """
    is_plain = hidden.device.type == "cpu" and hidden.dtype in _COMPILED_TYPES and len(hidden) > 1
    if IS_COMPILED and is_plain and layers[0].training and len(layers) > 1:
        return _fused(layers, hidden, passes)
    for layer in layers:
        if isinstance(layer, nn.Dropout):
            hidden, passes = _repeated(hidden, passes), 1
        hidden = layer(hidden)
    return _repeated(hidden, passes)


def _repeated(hidden: Tensor, passes: int) -> Tensor:
    return hidden if passes == 1 else hidden.repeat(passes, 1)  # which copies even once


def _fused(layers: Sequence[nn.Module], hidden: Tensor, passes: int) -> Tensor:
    share = layers[-1].p if isinstance(layers[-1], nn.Dropout) else 0.0
    # As everywhere in torch, the seed of the process decides.
    seed = int(torch.randint(_SEEDS, ())) if share else 0
    norm = layers[0]
    if not isinstance(norm, nn.BatchNorm1d):
        dropping = _Dropping(passes, share, seed, 0.0)
        return cast("Tensor", _Activation.apply(hidden, None, None, dropping)[0])  # type: ignore[no-untyped-call]
    output, mean, inverse = _Activation.apply(  # type: ignore[no-untyped-call]
        hidden, norm.weight, norm.bias, _Dropping(passes, share, seed, norm.eps)
    )
    _learn(norm, mean, inverse, len(hidden))
    return cast("Tensor", output)


class _Dropping(NamedTuple):
    """What the compiled pass is told besides the arrays."""

    passes: int
    share: float
    seed: int
    eps: float


@torch.no_grad()
def _learn(norm: nn.BatchNorm1d, mean: Tensor, inverse: Tensor, rows: int) -> None:
    """Running statistics as `nn.BatchNorm1d` has them: the variance is that of a sample."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    variance = (inverse**-2 - norm.eps) * (rows / (rows - 1))
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)
    norm.num_batches_tracked.add_(1)


class _Activation(torch.autograd.Function):
    """`activate` in compiled passes; what it saves for the way back is what it takes and gives."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        told: _Dropping,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        hidden = hidden.contiguous()
        rows, width = hidden.shape
        output = hidden.new_empty(told.passes * rows, width)
        mean = inverse = None
        if scale is not None:
            mean, inverse = torch.empty_like(scale), torch.empty_like(scale)
        ctx.sizes = (rows, width, told.passes, hidden.dtype == torch.bfloat16, told.share)
        _activate.activate(
            *(memory(part) for part in (hidden, output, scale, shift, mean, inverse)),
            *ctx.sizes, told.eps, told.seed, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(hidden, output, scale, mean, inverse)
        return output, mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_grad: Tensor, *_: Any) -> Any:
        hidden, output, scale, mean, inverse = ctx.saved_tensors
        hidden_grad = torch.empty_like(hidden)
        grads = [None if scale is None else torch.empty_like(scale) for _ in range(2)]
        _activate.activate_back(
            *(memory(part) for part in (hidden, output, output_grad.contiguous(), hidden_grad)),
            *(memory(part) for part in (scale, mean, inverse, *grads)),
            *ctx.sizes, torch.get_num_threads(),
        )  # fmt: skip
        return hidden_grad, *grads, None
