from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import tables
from model.tables import SlotRuns, fm_term, look_up, summed

# Places of the slots: plain; multi-valued fields.
LAYOUTS = {
    "plain": [0, 1, 2],
    "multi": [0, 1, 1, 1, 2],
}
# The module is optional: no compiler, no module. The gate asserts that it was built.
compiled = pytest.mark.skipif(not tables.IS_COMPILED, reason="model._tables was not built")


def pairs(vectors: list[Tensor]) -> Tensor:
    """Sum of <v_i, v_j> over i < j, pair by pair."""
    return sum((a @ b for a, b in combinations(vectors, 2)), torch.zeros(()))


def batch(places: list[int], rows: int = 700) -> tuple[Tensor, Tensor]:
    """Indices of 20 rows per field, and weights, some 0."""
    random = torch.Generator().manual_seed(1)
    index = torch.randint(0, 20, (rows, len(places)), generator=random)
    index += torch.tensor([20 * place for place in places])
    weight = torch.randn(rows, len(places), generator=random)
    return index, weight * (torch.rand(weight.shape, generator=random) < 0.8)


def passes(
    places: list[int], dim: int, is_weighted: bool, uses_deep: bool, is_half: bool = False
) -> dict[str, Tensor]:
    """What a look-up gives, and the dense form of the gradients it leaves."""
    random = torch.Generator().manual_seed(2)
    fields = max(places) + 1
    embedding = torch.randn(20 * fields, dim, generator=random).requires_grad_()
    linear = torch.randn(20 * fields, 1, generator=random).requires_grad_()
    index, weight = batch(places)
    pooled, base = look_up(
        index, weight if is_weighted else None, embedding, linear, SlotRuns(places), is_half
    )
    loss = (base * torch.randn(base.shape, generator=random)).sum()
    if uses_deep:
        loss = loss + (pooled * torch.randn(pooled.shape, generator=random)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert embedding.grad is not None
    assert linear.grad is not None
    return {
        "pooled": pooled,
        "base": base,
        "embedding": embedding.grad.to_dense(),
        "linear": linear.grad.to_dense(),
    }


@pytest.mark.parametrize("fields", [1, 2, 3, 8, 39])
@pytest.mark.parametrize("dim", [1, 4, 16])
def test_fm_term_is_the_sum_over_all_pairs(fields: int, dim: int) -> None:
    pooled = torch.randn(5, fields, dim, generator=torch.Generator().manual_seed(fields))
    expected = torch.stack([pairs(list(row)) for row in pooled])
    torch.testing.assert_close(fm_term(pooled), expected, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [1, 10, 16])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("uses_deep", [False, True])
def test_compiled_look_up_equals_plain_torch(
    layout: str, dim: int, is_weighted: bool, uses_deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and gradients, for weighted and multi-valued slots."""
    fast = passes(LAYOUTS[layout], dim, is_weighted, uses_deep)
    monkeypatch.setattr(tables, "IS_COMPILED", False)
    plain = passes(LAYOUTS[layout], dim, is_weighted, uses_deep)
    for name, expected in plain.items():
        torch.testing.assert_close(fast[name], expected, rtol=1e-4, atol=1e-4)


@compiled
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_look_up_in_bfloat16_equals_plain_torch(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors up to a last bit; base and gradients as in float32."""
    fast = passes(LAYOUTS[layout], 16, True, True, True)
    monkeypatch.setattr(tables, "IS_COMPILED", False)
    plain = passes(LAYOUTS[layout], 16, True, True, True)
    assert fast["pooled"].dtype == plain["pooled"].dtype == torch.bfloat16
    torch.testing.assert_close(fast["pooled"], plain["pooled"], rtol=2**-7, atol=1e-6)
    for name in ("base", "embedding", "linear"):
        torch.testing.assert_close(fast[name], plain[name], rtol=1e-4, atol=1e-4)


@compiled
def test_result_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        seen.append(passes(LAYOUTS["multi"], 16, True, True))
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=compiled)])
@pytest.mark.parametrize("wrong", [-1, 40])
def test_index_outside_the_table_is_refused(
    wrong: int, is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "IS_COMPILED", is_compiled)
    index = torch.tensor([[0, 20], [0, wrong]])
    with pytest.raises(IndexError):
        look_up(index, None, torch.zeros(40, 2), torch.zeros(40, 1), SlotRuns([0, 1]))


@compiled
def test_gradient_holds_each_touched_row_once() -> None:
    index, _ = batch(LAYOUTS["plain"])
    embedding = torch.zeros(60, 2, requires_grad=True)
    _, base = look_up(index, None, embedding, torch.zeros(60, 1), SlotRuns(LAYOUTS["plain"]))
    base.sum().backward()  # type: ignore[no-untyped-call]
    assert embedding.grad is not None
    assert embedding.grad._nnz() == len(set(index.flatten().tolist()))


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=compiled)])
def test_rows_given_twice_are_summed(is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after two backward passes before one step."""
    monkeypatch.setattr(tables, "IS_COMPILED", is_compiled)
    values = torch.tensor([[1.0], [2.0], [4.0]])
    rows, sums = summed(
        torch.sparse_coo_tensor(torch.tensor([[3, 0, 3]]), values, (5, 1), check_invariants=False)
    )
    assert dict(zip(rows.tolist(), sums[:, 0].tolist(), strict=True)) == {0: 2.0, 3: 5.0}


@compiled
def test_compiled_module_refuses_arrays_of_other_sizes() -> None:
    from model import _tables  # noqa: PLC0415 - it may be absent

    arrays: list[Any] = [np.zeros((5, 2), np.float32), np.zeros((5, 4), np.float32)]
    rates = (2, 0.0, 0.1, 0.9, 0.999, 1.0, 1e-8, 1)
    values = np.zeros((2, 2), np.float32)
    for rows in ([1, 1], [0, 5], [-1, 0]):
        with pytest.raises(ValueError, match="each once"):
            _tables.adam_rows(*arrays, np.array(rows), values, *rates)
    with pytest.raises(ValueError, match="values holds 16 bytes instead of 24"):
        _tables.adam_rows(*arrays, np.array([0, 1, 2]), values, *rates)
