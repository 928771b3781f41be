"""The harness itself: it must see a wrong answer, or its zeros say nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.chaos.questions import Question, questions, write_version
from tests.chaos.row import Row
from tests.chaos.server import started


def changed(question: Question, by: float) -> Question:
    scores = {version: [one + by for one in all_] for version, all_ in question.scores.items()}
    return replace(question, scores=scores)


@pytest.mark.parametrize(("by", "is_kept"), [(0.0, True), (0.001, False)])
def test_a_load_sees_every_wrong_answer(tmp_path: Path, by: float, is_kept: bool) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    write_version(folder, 1)
    asked = [changed(question, by) for question in questions()]
    with started(folder, workers=1) as server, Load(server.address, asked) as load:
        time.sleep(0.5)
    row = Row("none", "nothing")
    row.add(load)
    assert row.failed == []
    assert len(row.wrong) == (0 if is_kept else row.requests)
    assert row.requests > 0
    assert row.is_kept is is_kept


def test_more_failures_than_are_allowed_break_the_promise() -> None:
    row = Row("none", "nothing", allowed=1)
    row.failed.append("gone")
    assert row.is_kept
    row.failed.append("gone")
    assert not row.is_kept
