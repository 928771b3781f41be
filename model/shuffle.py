"""The order in which an epoch reads the training rows.

Rows that fit into `WINDOW_BYTES` come in a full random permutation. Of more rows, chunks of
`CHUNK_ROWS` neighbours are drawn in random order, as many at a time as fit into a window, and the
rows of a window are permuted: a batch mixes rows of over a thousand places of the log, while the
disk is read in long runs and once per epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.rows import Rows

WINDOW_BYTES = 1 << 30
CHUNK_ROWS = 4096


def shuffled(rows: Rows, generator: torch.Generator) -> Tensor:
    """A permutation `[rows]` int64."""
    window = window_rows(rows)
    if len(rows) <= window:
        return torch.randperm(len(rows), generator=generator)
    chunks = torch.split(torch.arange(len(rows)), CHUNK_ROWS)
    order = torch.randperm(len(chunks), generator=generator)
    drawn = torch.split(order, max(window // CHUNK_ROWS, 1))
    windows = [torch.cat([chunks[place] for place in places.tolist()]) for places in drawn]
    return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in windows])


def window_rows(rows: Rows) -> int:
    """How many rows fit into a window."""
    return max(WINDOW_BYTES // rows.row_bytes, 1)
