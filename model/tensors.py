"""Tensors written as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a file.

    Raises:
        OSError: there is no room; the library itself raises an error of its own.
    """
    try:
        save_file({name: one.contiguous() for name, one in tensors.items()}, file, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
