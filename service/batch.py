"""`deepfm score`: a file's rows, scored by the online code; the only file here with pyarrow."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import canonical_columns, field_log
from features.atomic import new_file
from features.bundle import open_bundle
from features.errors import DataError, FeatureError, OutputError
from features.log import Batch
from features.schema import SIDES
from features.signature import TrustedKeys
from service.cores import usable_cores
from service.scorer import Scorer

_REPORT_S = 5.0


def score_file(
    bundle: Path,
    location: str,
    target: Path,
    trusted: TrustedKeys | None = None,
) -> int:
    """Write the input's rows, in order, with the columns `logit` and `score` behind them.

    Args:
        bundle: `ROOT/NAME/VERSION`.
        location: file, folder or glob of Parquet, CSV or TSV; a field without a column is missing
            in every row.
        target: the Parquet file to write.
        trusted: keys, one of which must have signed the bundle; None asks for no signature.

    Returns:
        Number of rows.

    Raises:
        BundleError: the bundle is not whole, or no trusted key has signed it.
        DataError: the input cannot be read, a value is refused by its field, or no field of the
            model has a column.
        OutputError: the target cannot be written, is the input, or is not named `.parquet`.
    """
    if target.suffix != ".parquet":
        raise OutputError(f"{target}: Parquet is written, expected a name that ends in .parquet")
    scorer = Scorer(open_bundle(bundle, trusted), "auto", usable_cores())
    scorer.replay()
    log = field_log(location, scorer.bundle.schema.fields, keep_others=True)
    if str(target.absolute()) in log.files():
        raise OutputError(f"{target}: holds rows to score, expected another file")
    told: set[str] = set()
    started = reported = time.perf_counter()
    rows = 0
    writer = None
    with new_file(target) as file:
        try:
            for batch in log.batches():
                _tell_of_absent_columns(scorer, batch, told)
                table = _scored(scorer, batch)
                writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
                if table.schema != writer.schema:
                    raise DataError(f"{batch.path}: has other columns than the file before it")
                writer.write_table(table)
                rows += table.num_rows
                if time.perf_counter() - reported > _REPORT_S:
                    reported = time.perf_counter()
                    rate = rows / (reported - started)
                    sys.stderr.write(f"{rows:,} rows, {rate:,.0f} rows/s\n")
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"{location}: no row to score")
    return rows


def _tell_of_absent_columns(scorer: Scorer, batch: Batch, told: set[str]) -> None:
    """Say once of each field that a file has no column of it, as when it was renamed upstream."""
    fields = {member.name for member in scorer.bundle.schema.fields}
    for name in sorted(fields - set(batch.table.schema.names) - told):
        sys.stderr.write(f"{batch.path}: has no column '{name}', it is scored as missing\n")
        told.add(name)


def _scored(scorer: Scorer, batch: Batch) -> pa.Table:
    schema, rows = scorer.bundle.schema, batch.table.num_rows
    names = set(batch.table.schema.names)
    if not names & {member.name for member in schema.fields}:
        raise DataError(f"{batch.path}: has no column of the model's fields")
    separator = scorer.bundle.manifest.list_separator
    encoded = []
    for side in SIDES:
        encoder = scorer.encoders[side]
        columns, _ = canonical_columns(batch, encoder.fields, schema, separator)
        try:
            encoded.append(encoder.encode(columns, rows))
        except FeatureError as error:
            raise DataError(f"{batch.place(error.row or 0)}: {error.message}") from error
    scorer.crosser.fill(encoded[0], encoded[1])
    logit, score = scorer.score(encoded[0], encoded[1], np.arange(rows))
    kept = batch.table.select([name for name in batch.table.schema.names
                               if name not in ("logit", "score")])  # fmt: skip
    return (
        pa.Table.from_batches([kept])
        .append_column("logit", pa.array(logit))
        .append_column("score", pa.array(score))
    )
