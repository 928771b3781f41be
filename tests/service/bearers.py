"""Two keys, as a client bears them and as a file holds them."""

from __future__ import annotations

from pathlib import Path

KEY, OTHER = "first-key-of-all", "second-key-of-all"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def write_keys(folder: Path) -> Path:
    """A file of both, with spaces and an empty line."""
    file = folder / "keys"
    file.write_text(f"{KEY}\n\n  {OTHER}  \n")
    return file
