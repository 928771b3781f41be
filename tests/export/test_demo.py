from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from export.demo import make_demo
from features.bundle import open_bundle
from features.errors import ConfigError
from service.app import create_app
from service.settings import Settings


@pytest.mark.parametrize(
    ("rows", "seed", "option"),
    [(-50, 0, "--rows"), (999, 0, "--rows"), (1000, -1, "--seed"), (1000, 2**64, "--seed")],
)
def test_what_no_demo_can_be_made_of_is_refused(
    tmp_path: Path, rows: int, seed: int, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"option {option} is .*, expected"):
        make_demo(tmp_path, rows, seed)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("bundles"), rows=40_000, seed=1)


@pytest.mark.slow
def test_demo_is_the_first_version_and_says_how_near_the_best_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = make_demo(tmp_path, rows=20_000, seed=2)
    said = capsys.readouterr().err
    found = re.search(r"test auc (0\.\d+) of the best reachable (0\.\d+)", said)
    assert target == tmp_path / "demo" / "1"
    assert found is not None
    assert 0.5 < float(found[1]) <= float(found[2]) + 0.01


@pytest.mark.slow
def test_demo_learns_most_of_what_can_be_learned(demo: Path) -> None:
    """From a tenth of its usual rows; the best reachable test AUC is about 0.8."""
    assert open_bundle(demo).manifest.metrics["uncalibrated"]["test"]["auc"] > 0.65


@pytest.mark.slow
def test_demo_serves(demo: Path) -> None:
    rank = {
        "context": {"user_id": "u1", "age": 30, "hour": 12, "device": "phone"},
        "candidates": [
            {"id": item, "features": {"item_id": item, "price": 9.5, "tags": ["tag1"]}}
            for item in ("i1", "i2", "i3")
        ],
    }
    with TestClient(create_app(Settings(bundle=demo.parent))) as client:
        items = client.post("/rank", json=rank).json()["items"]
    assert sorted(item["id"] for item in items) == ["i1", "i2", "i3"]
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True)
