from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model import importance
from model.importance import field_columns, permutation_importance
from model.metrics import auc
from model.run import Run, Sample, load_run


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return load_run(run_folder)


@pytest.fixture(scope="module")
def sample(run: Run) -> Sample:
    """Training rows: more than the judged ones, and learned better."""
    label = (np.random.default_rng(0).random(len(run.sample_index)) < 0.5).astype(np.float32)
    return Sample(run.sample_index, run.sample_weight, label)


def test_every_field_has_its_columns_and_every_column_its_field(run: Run) -> None:
    columns = field_columns(run.schema)
    assert list(columns) == [
        "age", "income", "city", "history", "price", "size", "item", "shop", "tags",
    ]  # fmt: skip
    covered = [slot for columns in columns.values() for slot in range(columns.start, columns.stop)]
    crosses = {6, 13, 14}  # of the context, behind its fields; of the candidate, behind its own
    assert covered == [s for s in range(run.sample_index.shape[1]) if s not in crosses]


def test_field_that_decides_the_click_is_the_most_important(run: Run) -> None:
    """The log's clicks depend on the item alone."""
    assert run.judged is not None
    drops, rows = permutation_importance(run.network, run.schema, run.judged)
    assert rows == len(run.judged.label) == 120
    assert max(drops, key=drops.__getitem__) == "item"
    assert set(drops) == {field.name for field in run.schema.fields}


def test_drop_is_the_auc_lost_by_shuffling_the_fields_own_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that reads one column alone: the other fields drop nothing."""
    seen = field_columns(run.schema)["tags"]
    assert run.judged is not None
    monkeypatch.setattr(importance, "_logit", lambda _, index, __: index[:, seen].sum(1))
    drops, _ = permutation_importance(run.network, run.schema, run.judged)
    assert drops["tags"] != 0
    assert {name for name, drop in drops.items() if drop} == {"tags"}
    order = np.random.default_rng(0)
    order.permutation(120)
    shuffled = run.judged.index[order.permutation(120)][:, seen].sum(1)
    whole = auc(run.judged.index[:, seen].sum(1), run.judged.label)
    assert drops["tags"] == pytest.approx(whole - auc(shuffled, run.judged.label))


def test_weights_are_shuffled_with_their_values(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multi field's weights belong to its indices."""
    assert run.judged is not None
    assert run.judged.weight is not None
    columns = field_columns(run.schema)["history"]
    pairs = []

    def keep(_: object, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
        rows = np.concatenate([index[:, columns], weight[:, columns]], 1)
        pairs.append(sorted(map(tuple, rows.tolist())))
        return index[:, 0]

    monkeypatch.setattr(importance, "_logit", keep)
    permutation_importance(run.network, run.schema, run.judged)
    assert all(pair == pairs[0] for pair in pairs)


def test_rows_and_passes_are_bounded(
    run: Run, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "MOST_ROWS", 100)
    assert permutation_importance(run.network, run.schema, sample)[1] == 100
    monkeypatch.setattr(importance, "MOST_FORWARD_ROWS", 500)
    assert permutation_importance(run.network, run.schema, sample)[1] == 50


def test_same_run_gives_the_same_figures_and_leaves_the_rows_alone(
    run: Run, sample: Sample
) -> None:
    before = sample.index.copy()
    first = permutation_importance(run.network, run.schema, sample)
    assert permutation_importance(run.network, run.schema, sample) == first
    np.testing.assert_array_equal(sample.index, before)


def test_rows_of_one_label_give_nan(run: Run, sample: Sample) -> None:
    one = Sample(sample.index, sample.weight, np.zeros_like(sample.label))
    drops, _ = permutation_importance(run.network, run.schema, one)
    assert all(np.isnan(drop) for drop in drops.values())
