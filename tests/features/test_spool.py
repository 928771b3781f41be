from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import log as log_module
from features import spool as spool_module
from features.arrow import categories, lists, numbers
from features.log import ClickLog
from features.spool import Spool

KINDS = {"n": "number", "t": "category", "m": "any"}


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 7), (4, 9), (7, None), (20, None)])
@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("held", [0, spool_module.MOST_HELD], ids=["file", "memory"])
def test_batches_are_those_of_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    held: int,
    start: int,
    stop: int | None,
) -> None:
    """Across files of different types, as a folder may hold them."""
    monkeypatch.setattr(log_module, "BATCH_ROWS", 3)
    monkeypatch.setattr(spool_module, "MOST_HELD", held)
    if form == "csv":
        (tmp_path / "a.csv").write_text("n,t,m\n" + "1,x,a|b\n,,\n3,y,c\n4,x,d\n")
        (tmp_path / "b.csv").write_text("n,t,m\n" + "5,z,e\n" * 6)
    else:
        pq.write_table(
            pa.table({"n": [1, None, 3, 4], "t": ["x", None, "y", "x"], "m": [["a"]] * 4}),
            tmp_path / "a.parquet",
        )
        pq.write_table(
            pa.table({"n": [0.5] * 6, "t": [1, 2, 1, 2, 1, 2], "m": [["b", None]] * 6}),
            tmp_path / "b.parquet",
        )
    log = ClickLog(str(tmp_path), KINDS)  # type: ignore[arg-type]
    with TemporaryFile() as file:
        spool = Spool(log, file)
        assert spool.rows == 10
        pairs = list(zip(spool.batches(start, stop), log.batches(start, stop), strict=True))
    assert sum(kept.table.num_rows for kept, _ in pairs) == max(0, (stop or 10) - start)
    for kept, read in pairs:
        assert kept.place(0) == read.place(0)
        np.testing.assert_array_equal(numbers(kept, "n"), numbers(read, "n"))
        np.testing.assert_array_equal(
            categories(kept, "t").hashes(1), categories(read, "t").hashes(1)
        )
        np.testing.assert_array_equal(
            lists(kept, "m", "|").values.hashes(1), lists(read, "m", "|").values.hashes(1)
        )
