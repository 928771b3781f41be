"""The scorer: a checked bundle and an ONNX Runtime session -> logits and scores."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.bundle import Bundle
from features.crosser import Crosser
from features.encode import Encoded, Encoder
from features.errors import BundleError, ConfigError, FeatureError
from features.int8 import exact_sums
from features.schema import SIDES, Side

# Read when the runtime is imported: since 1.32 its Linux wheels keep a device id in the home folder
# and report their use to their makers. A service tells nobody anything.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Provider = Literal["auto", "cpu", "cuda"]
Floats = NDArray[np.float32]

_OUTPUTS = ["logit", "score"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    "use_tf32": "0",  # TF32 is on by default and costs three digits
    "arena_extend_strategy": "kSameAsRequested",
}


# Threads share the rows of a call, each with at least so many: fewer are scored sooner than another
# thread wakes up.
_ROWS_OF_THREAD = 50


class Scorer:
    """One loaded version of one model.

    Args:
        bundle: checked by `open_bundle`.
        provider: `auto` takes CUDA where it really loads, else the CPU.
        threads: that share the rows of one call, on the CPU.
        rows_per_run: most rows of one run of the graph, which bounds the runtime's memory.

    Raises:
        BundleError: the graph does not load, or does not fit the schema.
        ConfigError: CUDA was asked for and does not load.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: Provider = "auto",
        threads: int = 1,
        rows_per_run: int = 256,
    ) -> None:
        self.bundle = bundle
        self.rows_per_run = rows_per_run
        self.encoders: dict[Side, Encoder] = {
            side: Encoder(bundle.schema, side, bundle.table) for side in SIDES
        }
        self.crosser = Crosser(bundle.schema)
        self.has_context = bool(bundle.schema.side("context"))
        self.session = _load_session(bundle, provider)
        self.provider = self.session.get_providers()[0]
        self._threads = threads if self.provider == _CPU else 1
        self._helpers = ThreadPoolExecutor(max(1, self._threads - 1))  # starts none before its use
        self._check_inputs()

    def score(
        self, context: Encoded, candidate: Encoded, context_row: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Logit and score of every candidate.

        Args:
            context: `[R, C]`.
            candidate: `[N, D]`.
            context_row: `[N]` int64, the row of `context` that belongs to each candidate.

        Returns:
            `[N]` each; the score is a click probability.
        """
        rows = len(context_row)
        runs = max(-(-rows // self.rows_per_run), min(self._threads, rows // _ROWS_OF_THREAD))
        if runs <= 1:
            return self._run(context, candidate, context_row)
        most = -(-rows // runs)
        starts = range(0, rows, most)
        parts: dict[int, tuple[Floats, Floats]] = {}
        left = iter(starts)  # shared: gives each start to one thread

        def work() -> None:
            for start in left:
                part = slice(start, start + most)
                own = context_row[part]
                first, last = own.min(), own.max()
                contexts = _take(context, slice(first, last + 1))
                parts[start] = self._run(contexts, _take(candidate, part), own - first)

        helpers = [self._helpers.submit(work) for _ in range(min(self._threads, len(starts)) - 1)]
        try:
            work()
        finally:
            for _ in left:  # after an error no other part is begun
                pass
            for helper in helpers:
                if not helper.cancel():  # else it had not begun, and nothing is left for it
                    helper.result()
        logit, score = zip(*(parts[start] for start in starts), strict=True)
        return np.concatenate(logit), np.concatenate(score)

    def _run(
        self, context: Encoded, candidate: Encoded, context_row: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        rows = len(context_row)
        if rows == 0:  # the runtime would reject a shape of 0 in some kernels
            return np.empty(0, np.float32), np.empty(0, np.float32)
        feed: dict[str, NDArray[Any]] = {"candidate": candidate.index}
        if candidate.weight is not None:
            feed["candidate_weight"] = candidate.weight
        if self.has_context:
            feed["context"] = context.index
            feed["context_row"] = context_row
            if context.weight is not None:
                feed["context_weight"] = context.weight
        # Not by `session.run`, which looks at every input in Python once more: 8 of a row's 125 us.
        logit, score = self.session._sess.run(_OUTPUTS, feed, None)
        if len(logit) != rows or len(score) != rows:
            raise RuntimeError(f"{rows} rows went in, {len(logit)} scores came out")
        return logit, score

    def replay(self) -> float:
        """Score the bundle's golden requests.

        Returns:
            The largest difference from the scores they must get.

        Raises:
            BundleError: it is beyond the tolerance; names the request and the processor.
        """
        worst, tolerance = 0.0, float(self.bundle.golden["tolerance"])
        for number, request in enumerate(self.bundle.golden["requests"]):
            try:
                score, expected = self._score_values(request), np.array(request["scores"])
                difference = float(np.abs(score - expected).max(initial=0.0))
            except (FeatureError, KeyError, TypeError, ValueError) as error:
                raise BundleError(
                    f"{self.bundle.path}: golden request {number} cannot be scored: {error}"
                ) from error
            if not difference <= tolerance:
                raise BundleError(
                    f"{self.bundle.path}: golden request {number} scores {difference:.2e} away "
                    f"from what it must on this processor ({self.provider}); allowed: {tolerance}"
                )
            worst = max(worst, difference)
        return worst

    def warm_up(self) -> None:
        """Run the sizes that requests bring, so that the first one does not pay for them."""
        for rows in (1, 2, 16, self.rows_per_run):
            context, candidate = self._any_rows("context", 1), self._any_rows("candidate", rows)
            self.score(context, candidate, np.zeros(rows, np.int64))

    def _any_rows(self, side: Side, rows: int) -> Encoded:
        """Rows of every field's first index; encoding none would refuse where missing is."""
        schema = self.bundle.schema
        first = [
            schema.ranges[member.name].start
            for member in schema.members(side)
            for _ in range(member.slots)
        ]
        index = np.tile(np.array(first, np.int64), (rows, 1))
        weight = np.zeros(index.shape, np.float32) if schema.is_weighted(side) else None
        return Encoded(index, weight)

    def _score_values(self, request: dict[str, Any]) -> Floats:
        encoded = []
        rows_by_side = (
            ("context", [request["context"]]),
            ("candidate", [item["features"] for item in request["candidates"]]),
        )
        for side, rows in rows_by_side:
            encoder = self.encoders[side]  # type: ignore[index]
            values = {field.name: [row.get(field.name) for row in rows] for field in encoder.fields}
            columns, _ = encoder.columns_from_values(values)
            encoded.append(encoder.encode(columns, len(rows)))
        context, candidate = encoded
        self.crosser.fill(context, candidate)
        return self.score(context, candidate, np.zeros(len(candidate.index), np.int64))[1]

    def _check_inputs(self) -> None:
        expected: dict[str, int | None] = {"candidate": self.encoders["candidate"].slots}
        if self.encoders["candidate"].is_weighted:
            expected["candidate_weight"] = self.encoders["candidate"].slots
        if self.has_context:
            expected |= {"context": self.encoders["context"].slots, "context_row": None}
            if self.encoders["context"].is_weighted:
                expected["context_weight"] = self.encoders["context"].slots
        found = {
            given.name: given.shape[1] if len(given.shape) > 1 else None
            for given in self.session.get_inputs()
        }
        if found != expected:
            raise BundleError(
                f"{self.bundle.path}: the graph takes {found}, the schema gives {expected}"
            )
        outputs = {given.name for given in self.session.get_outputs()}
        if not outputs.issuperset(_OUTPUTS):
            raise BundleError(f"{self.bundle.path}: the graph gives {sorted(outputs)}")


def _take(rows: Encoded, chosen: slice) -> Encoded:
    return Encoded(rows.index[chosen], None if rows.weight is None else rows.weight[chosen])


def _load_session(bundle: Bundle, provider: Provider) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # The runtime's own threads sleep, or spin, between a graph's nodes and meet behind each.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for entry in exact_sums().items():
        options.add_session_config_entry(*entry)
    chosen: list[Any] = [_CPU]
    if provider != "cpu" and _CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages
        chosen.insert(0, (_CUDA, _CUDA_OPTIONS))
    try:
        # From the path, never from bytes: the tables are memory-mapped and shared then.
        session = onnxruntime.InferenceSession(str(bundle.model_path), options, providers=chosen)
    except Exception as error:  # the runtime raises several classes of its own
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{bundle.path}: the graph does not load: {reason}") from error
    # What was built in is no proof: only what the session really uses is.
    if provider == "cuda" and session.get_providers()[0] != _CUDA:
        raise ConfigError(
            "provider cuda was asked for, but ONNX Runtime runs on "
            f"{session.get_providers()[0]}; install the extra gpu with its CUDA libraries, "
            "or ask for auto"
        )
    return session
