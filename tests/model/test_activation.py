from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model import activation
from model.activation import activate
from model.dropout import Dropout

# The module is optional: no compiler, no module. The gate asserts that it was built.
pytestmark = pytest.mark.skipif(not activation.IS_COMPILED, reason="model._activate was not built")
ROWS = 700  # more than a chunk of the sums
TYPES = [torch.float32, torch.bfloat16]


def norm(width: int) -> nn.BatchNorm1d:
    """Batch norm in the middle of its training."""
    layer = nn.BatchNorm1d(width)
    random = torch.Generator().manual_seed(1)
    for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(width, generator=random) + 0.1)
    return layer


def given(width: int, kind: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(2)
    return (3 + 2 * torch.randn(ROWS, width, generator=random)).to(kind).requires_grad_()


def seen(layers: list[nn.Module], hidden: Tensor, passes: int = 1) -> list[Tensor]:
    """Output and all gradients, each float32, and the buffers after the step."""
    layer = nn.Sequential(*layers).train()
    torch.manual_seed(3)
    out = activate(layers, hidden, passes)
    random = torch.Generator().manual_seed(4)
    (out * torch.randn(out.shape, generator=random).to(out.dtype)).float().sum().backward()  # type: ignore[no-untyped-call]
    grads = [one.grad for one in (hidden, *layer.parameters()) if one.grad is not None]
    return [one.detach().float() for one in (out, *grads, *layer.buffers())]


@pytest.mark.parametrize("width", [1, 16, 45, 64])
@pytest.mark.parametrize("kind", TYPES)
def test_compiled_batch_norm_equals_torch(
    width: int, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output, gradients and running statistics, whole blocks of columns or not."""
    fast = seen([norm(width), nn.ReLU()], given(width, kind))
    monkeypatch.setattr(activation, "IS_COMPILED", False)
    plain = seen([norm(width), nn.ReLU()], given(width, kind))
    close = {torch.float32: 2e-4, torch.bfloat16: 0.05}[kind]
    assert len(fast) == len(plain) == 7
    for one, other in zip(fast, plain, strict=True):
        # Sums over the batch nearly cancel, so that the size of their terms is what counts.
        scale = float(other.abs().max().clamp(min=1))
        torch.testing.assert_close(one, other, rtol=close, atol=close * scale)


@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("passes", [1, 2])
def test_compiled_dropout_scales_what_it_keeps(has_norm: bool, passes: int) -> None:
    """Output and every gradient are those of the formula with the elements that were kept."""
    layers = [*([norm(45)] if has_norm else []), nn.ReLU(), Dropout(0.3)]
    found = seen(layers, given(45), passes)
    kept = (found[0] > 0).float().view(passes, ROWS, 45)

    class Kept(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            return input * kept.view(-1, 45) / 0.7

    expected = seen_plain([*([norm(45)] if has_norm else []), nn.ReLU(), Kept(0.3)], passes)
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max().clamp(min=1))
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4 * scale)


def seen_plain(layers: list[nn.Module], passes: int) -> list[Tensor]:
    """As `seen`, by the layers themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activation, "IS_COMPILED", False)
        return seen(layers, given(45), passes)


def kept(share: float, seed: int, passes: int = 1) -> Tensor:
    """Which elements of a positive input survive, `[passes, rows, columns]`."""
    torch.manual_seed(seed)
    hidden = torch.ones(2000, 50)
    return (activate([nn.ReLU(), Dropout(share)], hidden, passes) > 0).view(passes, 2000, 50)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_share_of_dropped_elements_is_the_one_asked_for_in_every_column(share: float) -> None:
    dropped = ~kept(share, 0)[0]
    assert float(dropped.float().mean()) == pytest.approx(share, abs=0.005)
    spread = (share * (1 - share) / 2000) ** 0.5
    assert float((dropped.float().mean(0) - share).abs().max()) < 5 * spread


def test_neighbours_passes_and_seeds_are_dropped_independently() -> None:
    """Correlation of the masks: within five standard errors of zero."""
    (first, second), (other,) = kept(0.5, 0, 2).float() - 0.5, kept(0.5, 1).float() - 0.5
    shifted = [first.roll(1, 0), first.roll(1, 1), first.roll((1, 1), (0, 1)), first.roll(16, 1)]
    for one in (second, other, *shifted):
        assert abs(float((first * one).mean()) * 4) < 5 / first.numel() ** 0.5


def test_dropout_follows_the_seed_of_the_process() -> None:
    assert torch.equal(kept(0.5, 0), kept(0.5, 0))
    assert not torch.equal(kept(0.5, 0), kept(0.5, 1))


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(seen([norm(45), nn.ReLU(), Dropout(0.3)], given(45), 2))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_not_a_number_stays_that(kind: torch.dtype) -> None:
    """A training that diverges must not look as if it did not."""
    hidden = torch.full((4, 3), float("nan"), dtype=kind)
    assert activate([norm(3), nn.ReLU()], hidden).isnan().all()


def test_evaluation_uses_the_running_statistics() -> None:
    layers = [norm(5).eval(), nn.ReLU().eval(), Dropout(0.5).eval()]
    hidden = given(5)
    expected = nn.Sequential(*layers)(hidden)
    torch.testing.assert_close(activate(layers, hidden), expected, rtol=0, atol=0)


def test_compiled_module_refuses_arrays_of_other_sizes() -> None:
    from model import _activate  # noqa: PLC0415 - it may be absent

    array = torch.zeros(2, 3).numpy()
    sizes = (2, 3, 1, False, 0.0, 1e-5, 0, 1)
    with pytest.raises(ValueError, match="output holds 24 bytes instead of 48"):
        _activate.activate(array, array, None, None, None, None, 2, 3, 2, *sizes[3:])
    with pytest.raises(ValueError, match="a batch norm holds 24 bytes instead of 12"):
        _activate.activate(array, array.copy(), array, array, array, array, *sizes)
    with pytest.raises(ValueError, match="out of range"):
        _activate.activate(array, array, None, None, None, None, 0, *sizes[1:])
