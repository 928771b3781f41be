from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from features.bundle import Bundle, open_bundle, write_manifest
from features.encode import Encoded
from features.errors import BundleError, ConfigError
from features.schema import Schema
from service.scorer import Scorer
from tests.service.linear import NO_CONTEXT, REJECTING, SCHEMA, write_bundle


@pytest.mark.parametrize("schema", [SCHEMA, NO_CONTEXT, REJECTING])
def test_golden_requests_replay_and_warming_up_does_no_harm(tmp_path: Path, schema: Schema) -> None:
    scorer = Scorer(open_bundle(write_bundle(tmp_path / "m" / "1", schema)), "cpu")
    assert scorer.replay() <= 1e-5
    scorer.warm_up()


def test_a_graph_made_for_another_schema_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "m" / "1", SCHEMA, graph_schema=REJECTING)
    with pytest.raises(BundleError, match=r"the graph takes .* the schema gives"):
        Scorer(open_bundle(folder), "cpu")


@pytest.mark.parametrize("location", ["../stolen.data", "/stolen.data"])
def test_weights_outside_the_bundle_are_refused(tmp_path: Path, location: str) -> None:
    folder = write_bundle(tmp_path / "m" / "1")
    manifest = open_bundle(folder).manifest
    shutil.copy(folder / "model.onnx.data", tmp_path / "m" / "stolen.data")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="the graph does not load"):
        Scorer(open_bundle(folder), "cpu")


def test_a_graph_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "m" / "1")
    manifest = open_bundle(folder).manifest
    (folder / "model.onnx").write_bytes(b"not a graph")
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="the graph does not load"):
        Scorer(open_bundle(folder), "cpu")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_load_is_refused_with_a_sentence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built in is no proof: a CUDA provider that is listed may still not load."""
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    with pytest.raises(ConfigError, match="cuda was asked for, but ONNX Runtime runs on CPU"):
        Scorer(bundle, "cuda")


def test_auto_runs_on_what_loads(bundle: Bundle) -> None:
    assert Scorer(bundle, "auto").provider.endswith("ExecutionProvider")


def test_many_rows_are_scored_in_several_runs_alike(bundle: Bundle, scorer: Scorer) -> None:
    random = np.random.default_rng(0)
    context, candidate = (
        rows(bundle.schema, side, 50, random) for side in ("context", "candidate")
    )
    whole = scorer.score(context, candidate, np.arange(50))
    parts = Scorer(bundle, "cpu", rows_per_run=7).score(context, candidate, np.arange(50))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    one = Encoded(context.index[:1], None if context.weight is None else context.weight[:1])
    ranked = Scorer(bundle, "cpu", rows_per_run=7).score(one, candidate, np.zeros(50, np.int64))
    np.testing.assert_allclose(
        ranked, scorer.score(one, candidate, np.zeros(50, np.int64)), atol=1e-6
    )


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_share_the_rows_of_a_call(
    bundle: Bundle, scorer: Scorer, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    context, candidate = (
        rows(bundle.schema, side, 230, random) for side in ("context", "candidate")
    )
    used = []
    shared = Scorer(bundle, "cpu", threads)
    run = shared._run

    def noting(*given: Any) -> Any:
        used.append(len(given[2]))
        return run(*given)

    monkeypatch.setattr(shared, "_run", noting)
    own = np.arange(230)
    for context_row in (own, own[::-1] // 2, np.full(230, 7)):
        used.clear()
        found = shared.score(context, candidate, context_row)
        assert len(used) == min(threads, 4)
        assert sum(used) == 230
        np.testing.assert_allclose(found, scorer.score(context, candidate, context_row), atol=1e-6)


def test_a_part_that_fails_fails_the_call(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    context, candidate = (
        rows(bundle.schema, side, 200, random) for side in ("context", "candidate")
    )
    shared = Scorer(bundle, "cpu", 2)
    candidate.index[150:] = 1 << 40  # beyond the table
    with pytest.raises(Exception, match="indices element out of data bounds"):
        shared.score(context, candidate, np.arange(200))
    candidate.index[150:] = candidate.index[:50]
    candidate.index[:50] += 1 << 40  # in the caller's own part, this time
    with pytest.raises(Exception, match="indices element out of data bounds"):
        shared.score(context, candidate, np.arange(200))
    candidate.index[:50] -= 1 << 40
    logit, _ = shared.score(context, candidate, np.arange(200))
    assert len(logit) == 200


def rows(schema: Schema, side: Any, count: int, random: np.random.Generator) -> Encoded:
    """Rows of indices that the fields and crosses of a side may have."""
    slots = [schema.ranges[one.name] for one in schema.members(side) for _ in range(one.slots)]
    index = np.stack([random.integers(r.start, r.stop, count) for r in slots], 1)
    weight = random.random(index.shape).astype(np.float32) if schema.is_weighted(side) else None
    return Encoded(index, weight)


def test_no_rows_are_an_answer(scorer: Scorer) -> None:
    context, candidate = (
        scorer.encoders["context"].encode({}, 1),
        scorer.encoders["candidate"].encode({}, 0),
    )
    logit, score = scorer.score(context, candidate, np.zeros(0, np.int64))
    assert logit.shape == score.shape == (0,)


def test_an_unmet_golden_request_names_the_place(bundle: Bundle) -> None:
    golden = bundle.golden
    worse = dataclasses.replace(bundle)
    requests = [dict(request) for request in golden["requests"]]
    requests[1]["scores"] = [score + 1e-3 for score in requests[1]["scores"]]
    worse.__dict__["golden"] = golden | {"requests": requests}
    with pytest.raises(BundleError, match="golden request 1"):
        Scorer(worse, "cpu").replay()


def test_the_runtime_reports_its_use_to_nobody(bundle: Bundle, tmp_path: Path) -> None:
    """Left to itself it keeps a device id and a queue of reports in the home folder."""
    script = (
        "import sys; from pathlib import Path; from service.scorer import Scorer;"
        "from features.bundle import open_bundle; Scorer(open_bundle(Path(sys.argv[1])), 'cpu')"
    )
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), str(tmp_path))
    environment = {n: v for n, v in os.environ.items() if n != "ORT_DISABLE_TELEMETRY"} | homes
    command = [sys.executable, "-c", script, str(bundle.path)]
    subprocess.run(command, env=environment, check=True)
    assert not list(tmp_path.iterdir())
