from __future__ import annotations

import pytest
import torch

from model.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_scales_the_rest(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = torch.ones(1001, 101, dtype=dtype, requires_grad=True)
    out = Dropout(0.2)(given)
    assert float((out == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1.25))
    out.sum().backward()
    assert torch.equal(given.grad, out)  # type: ignore[arg-type]


def test_dropout_follows_the_seed_and_spares_evaluation() -> None:
    layer, given = Dropout(0.5), torch.ones(50, 3)
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seen.append(layer(given))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(layer.eval()(given), given)
