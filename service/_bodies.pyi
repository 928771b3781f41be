from typing_extensions import Buffer

Side = tuple[int, bytearray, bytearray | None]
Answer = tuple[Side, Side, dict[str, int], dict[str, int]]

class Reader:
    def __new__(
        cls,
        table: Buffer,
        homes: int,
        weighted: tuple[bool, bool],
        fields: list[tuple[object, ...]],
        longest: tuple[int, int, int],
    ) -> Reader: ...
    def score(self, body: bytes, most_rows: int) -> Answer | None: ...
    def rank(
        self, body: bytes, most_rows: int
    ) -> tuple[Answer, list[str | int], int | None, bool, bool] | None: ...

def hash_text(text: bytes, seed: int) -> int: ...
