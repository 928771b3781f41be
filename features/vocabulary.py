"""The known categories of one field: canonical texts in index order, held as two arrays.

A Python list of a million strings costs 100 MB in every process; UTF-8 bytes and their ends cost
what the text costs, can be memory-mapped, and are only decoded when a person asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

try:
    from features import _texts
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True


class Vocabulary:
    """Immutable sequence of texts.

    Args:
        text: `[bytes]` uint8, the UTF-8 of all texts one after another.
        ends: `[categories]` int64, where each text ends in `text`, counted from `start`.
        start: where the first text begins in `text`.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64], start: int = 0) -> None:
        self.text = text
        self.ends = ends
        self.start = start

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Vocabulary holding `texts` in their order."""
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    @classmethod
    def of_arrow(cls, texts: Any) -> Vocabulary:
        """Vocabulary of an Arrow string array without gaps, whose layout is the same."""
        _, ends, text = texts.buffers()
        bounds = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        held = np.frombuffer(text or b"", np.uint8)[bounds[0] : bounds[-1]]
        return cls(held, (bounds[1:] - bounds[0]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (text.decode() for text in self.encoded())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and list(self.encoded()) == list(other.encoded())

    def __hash__(self) -> int:
        return hash(self.packed())

    def text_at(self, place: int) -> str:
        """The text of category `place`, counted from 0."""
        begin = int(self.ends[place - 1]) if place else 0
        return self.text[self.start + begin : self.start + int(self.ends[place])].tobytes().decode()

    def encoded(self) -> Iterator[bytes]:
        """Each text as UTF-8."""
        text = self.packed()
        begin = 0
        for end in self.ends.tolist():
            yield text[begin:end]
            begin = end

    def packed(self) -> bytes:
        """All texts one after another, UTF-8."""
        last = int(self.ends[-1]) if len(self.ends) else 0
        return self.text[self.start : self.start + last].tobytes()

    def hashes(self, seed: int) -> NDArray[np.uint64]:
        """`features.canonical.hash_text` of every text, `[categories]`."""
        digest = xxhash.xxh3_64_intdigest
        if not IS_COMPILED:
            return np.array([digest(text, seed) or 1 for text in self.encoded()], np.uint64)
        hashes = np.empty(len(self), np.uint64)
        _texts.hash_texts(self.text[self.start :], self.ends, seed, hashes)
        for place in np.flatnonzero(hashes == 0).tolist():  # long ones
            hashes[place] = digest(self.text_at(place).encode(), seed) or 1
        return hashes
