from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from features.errors import BundleError
from features.schema import BucketField, Schema
from service import owner
from service.app import create_app
from service.model import Model, load_model
from service.owner import OwnVersions
from service.scorer import Scorer
from service.settings import Settings
from tests.service.linear import NO_CONTEXT, write_bundle

KEY = {"authorization": "Bearer key"}


@contextmanager
def serving(folder: Path, poll_s: float = 0, version: int | None = None) -> Iterator[TestClient]:
    keys = folder.parent / "keys"
    keys.write_text("key\n")
    settings = Settings(
        bundle=folder,
        version=version,
        provider="cpu",
        reload_poll_s=poll_s,
        admin_keys_file=keys,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def reload(client: TestClient, version: int | None = None) -> Any:
    return client.post("/admin/reload", headers=KEY, json={"version": version})


def answers_with(client: TestClient) -> int:
    found: int = client.post("/score", json={"instances": [{"price": 3}]}).json()["version"]
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)


def write_corrupt(folder: Path) -> None:
    with (write_bundle(folder) / "model.onnx.data").open("ab") as file:
        file.write(b"x")


def write_half(folder: Path) -> None:
    (write_bundle(folder) / "model.onnx").unlink()


def write_empty(folder: Path) -> None:
    folder.mkdir(parents=True)


def write_other_format(folder: Path) -> None:
    manifest = write_bundle(folder) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))


def write_wrong_scores(folder: Path) -> None:
    write_bundle(folder, shift=1e-3)


BAD = [write_corrupt, write_half, write_empty, write_other_format, write_wrong_scores]


def test_a_new_version_is_noticed_by_polling(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1")
    with serving(tmp_path / "m", poll_s=0.02) as client:
        assert answers_with(client) == 1
        write_bundle(tmp_path / "draft" / "m" / "2", seed=2).rename(tmp_path / "m" / "2")
        wait_until(lambda: answers_with(client) == 2)
        assert "deepfm_model_version 2.0" in client.get("/metrics").text
        assert 'deepfm_reloads_total{outcome="switched"} 1.0' in client.get("/metrics").text


def test_schema_and_graph_switch_together(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1")
    write_bundle(tmp_path / "m" / "2", NO_CONTEXT)
    body: Any = {"instances": [{"age": 40, "price": 3}]}
    with serving(tmp_path / "m", version=1) as client:
        assert "warnings" not in client.post("/score", json=body).json()
        assert reload(client, 2).status_code == 200
        assert client.post("/score", json=body).json()["warnings"][0]["field"] == "age"
        assert "age" not in str(client.get("/v1/models").json())
        assert "age" not in client.get("/openapi.json").json()["components"]["schemas"]


def test_a_rollback_lasts_under_polling_until_something_newer_appears(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path / "m" / str(version), seed=version)
    with serving(tmp_path / "m", poll_s=0.02) as client:
        assert reload(client, 1).json() == {"model": "m", "version": 1}
        time.sleep(0.2)
        assert answers_with(client) == 1
        write_bundle(tmp_path / "draft" / "m" / "3").rename(tmp_path / "m" / "3")
        wait_until(lambda: answers_with(client) == 3)


def test_a_pinned_version_switches_only_when_asked(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path / "m" / str(version))
    with serving(tmp_path / "m", poll_s=0.02, version=1) as client:
        time.sleep(0.2)
        assert answers_with(client) == 1
        assert reload(client, 2).json()["version"] == answers_with(client) == 2
        assert reload(client).json()["version"] == answers_with(client) == 1


def test_only_the_version_that_answers_can_be_picked(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path / "m" / str(version))
    with serving(tmp_path / "m", version=1) as client:
        reload(client, 2)
        body: Any = {"instances": [{}]}
        assert client.post("/score?version=2", json=body).json()["version"] == 2
        assert client.post("/score?version=1", json=body).status_code == 404


@pytest.mark.parametrize("write_bad", BAD)
def test_a_bad_version_is_told_of_and_the_good_one_goes_on(
    tmp_path: Path, write_bad: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write_bundle(tmp_path / "m" / "1")
    with serving(tmp_path / "m", poll_s=0.02) as client:
        write_bad(tmp_path / "draft" / "m" / "2")
        (tmp_path / "draft" / "m" / "2").rename(tmp_path / "m" / "2")
        wait_until(lambda: "refused" in client.get("/readyz").json())
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["version"]) == ("ready", 1)
        assert ready["refused"][0]["version"] == 2
        assert str(tmp_path) not in str(ready)
        time.sleep(0.1)  # several polls: not one of them tries it again
        metrics = client.get("/metrics").text
        assert 'deepfm_reloads_total{outcome="refused"} 1.0' in metrics
        assert "deepfm_refused_versions 1.0" in metrics
        assert caplog.text.count("version 2 is refused") == 1
        assert answers_with(client) == 1
        answer = reload(client)  # who asks, makes it be tried again, and hears why not
        assert answer.status_code == 409
        assert ready["refused"][0]["reason"] in answer.json()["detail"]


def test_a_version_that_is_copied_slowly_is_served_when_it_is_complete(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1")
    source = write_bundle(tmp_path / "draft" / "m" / "2")
    with serving(tmp_path / "m", poll_s=0.02) as client:
        (tmp_path / "m" / "2").mkdir()
        for file in sorted(source.iterdir()):
            shutil.copy2(file, tmp_path / "m" / "2")
            time.sleep(0.03)
        wait_until(lambda: answers_with(client) == 2)
        assert "refused" not in client.get("/readyz").json()


def test_a_fault_in_loading_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2):
        write_bundle(tmp_path / "m" / str(version))

    def fail(*_: object) -> Model:
        raise ZeroDivisionError("secret")

    with serving(tmp_path / "m", version=1) as client:
        monkeypatch.setattr(Scorer, "replay", fail)
        answer = reload(client, 2)
        assert answer.status_code == 409
        assert "secret" not in answer.text
        assert answers_with(client) == 1


def test_requests_are_answered_while_a_version_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        write_bundle(tmp_path / "m" / str(version))
    loading, go_on = threading.Event(), threading.Event()
    load = load_model

    def slowly(settings: Settings, version: int) -> Model:
        loading.set()
        assert go_on.wait(10)
        return load(settings, version)

    with serving(tmp_path / "m", version=1) as client:
        monkeypatch.setattr(owner, "load_model", slowly)
        reloading = threading.Thread(target=reload, args=(client, 2))
        reloading.start()
        assert loading.wait(10)
        assert answers_with(client) == 1
        go_on.set()
        reloading.join()
        assert answers_with(client) == 2


def test_a_start_whose_newest_version_is_bad_serves_the_next_and_tells(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1")
    write_wrong_scores(tmp_path / "m" / "2")
    with serving(tmp_path / "m") as client:
        ready = client.get("/readyz").json()
        assert (ready["version"], ready["refused"][0]["version"]) == (1, 2)


def test_a_start_whose_newest_version_fails_in_the_runtime_serves_the_next(tmp_path: Path) -> None:
    """Its graph has too few weights, which is seen where one of them is looked up."""
    write_bundle(tmp_path / "m" / "1")
    fewer = Schema((BucketField(name="price", boundaries=(1.0,)),))
    write_bundle(tmp_path / "m" / "2", NO_CONTEXT, graph_schema=fewer)
    with serving(tmp_path / "m") as client:
        ready = client.get("/readyz").json()
        assert (ready["version"], ready["refused"][0]["version"]) == (1, 2)


def test_a_start_on_a_bad_pinned_version_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1")
    write_wrong_scores(tmp_path / "m" / "2")
    with pytest.raises(BundleError, match="golden request"):
        OwnVersions(Settings(bundle=tmp_path / "m", version=2, provider="cpu")).load_first()
