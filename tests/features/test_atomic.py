from __future__ import annotations

import contextlib
import itertools
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from features import atomic
from features.atomic import new_file, new_folder
from features.errors import OutputError


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def fail_after_writing(file: Path) -> None:
    file.write_text("half")
    raise KeyError


def write_at(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("theirs")


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with new_file(target) as file:
        file.write_text("whole")
        assert not target.exists()
        assert file.parent == target.parent
    assert target.read_text() == "whole"
    assert names(target.parent) == {"a.txt"}


def test_a_file_is_readable_by_others(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.txt") as file:
        file.write_text("whole")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with new_file(tmp_path / "a.txt") as file:
        file.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyError), new_file(tmp_path / "a.txt") as file:
        fail_after_writing(file)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "ctr" / "1"
    with new_folder(target) as folder:
        (folder / "a.txt").write_text("whole")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "a.txt").read_text() == "whole"
    assert names(target.parent) == {"1"}


def test_a_folder_and_its_files_are_readable_by_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "1") as folder:
        (folder / "a.txt").write_text("whole")
        (folder / "a.txt").chmod(0o600)
    assert stat.S_IMODE((tmp_path / "1").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "1" / "a.txt").stat().st_mode) == 0o644


def test_a_folder_in_the_making_is_no_version(tmp_path: Path) -> None:
    with new_folder(tmp_path / "1") as folder:
        assert folder.name.startswith(".1.")


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.txt").write_text("old")
    with pytest.raises(OutputError, match="1 exists already"), new_folder(tmp_path / "1"):
        pytest.fail("the block must not run")
    assert (tmp_path / "1" / "a.txt").read_text() == "old"


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    theirs = tmp_path / "1" / "a.txt"
    with pytest.raises(OutputError, match="cannot be written"), new_folder(theirs.parent):
        write_at(theirs)
    assert theirs.read_text() == "theirs"
    assert names(tmp_path) == {"1"}


def test_a_failed_block_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "1") as folder:
        fail_after_writing(folder / "a.txt")
    assert names(tmp_path) == set()


def test_where_nothing_can_be_written_the_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OutputError, match=r"file/a\.txt: cannot be written: "),
        new_file(tmp_path / "file" / "a.txt"),
    ):
        pytest.fail("the block must not run")
    with (
        pytest.raises(OutputError, match="file/1: cannot be written: "),
        new_folder(tmp_path / "file" / "1"),
    ):
        pytest.fail("the block must not run")


def test_a_full_disk_inside_the_block_names_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left"),
        new_file(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == set()


def interrupts(at: int) -> Callable[[FrameType, str, object], Any]:
    """A tracer that raises in the `at`-th line that this module or contextlib runs."""
    lines = itertools.count()

    def tracer(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in (atomic.__file__, contextlib.__file__):
            return None
        if event == "line" and next(lines) == at:
            raise KeyboardInterrupt
        return tracer

    return tracer


def write_interrupted(
    writer: Callable[[Path], AbstractContextManager[Path]], target: Path, at: int
) -> bool:
    """Whether it was."""
    before = sys.gettrace()
    sys.settrace(interrupts(at))
    try:
        with writer(target) as draft:
            (draft / "a.txt" if draft.is_dir() else draft).write_text("whole")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("writer", [new_file, new_folder])
def test_a_signal_at_any_line_leaves_the_target_or_nothing(
    writer: Callable[[Path], AbstractContextManager[Path]], tmp_path: Path
) -> None:
    left = set()
    for at in itertools.count():
        parent = tmp_path / str(at)
        parent.mkdir()
        if not write_interrupted(writer, parent / "1", at):
            return
        left.add(tuple(names(parent)))
        assert left <= {(), ("1",)}, at
