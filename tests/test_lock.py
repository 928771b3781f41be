"""The locked set of the image: what can be audited without a network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)(.*)$", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pinned(file: str) -> dict[str, str]:
    found = _PINNED.findall((ROOT / file).read_text())
    return {normal(name): version for name, version, _ in found}


def test_every_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements-serve.lock").read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text[text.index("\n", text.rindex("#")) :].strip())
    assert len(blocks) == len(pinned("requirements-serve.lock")) > 10
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]


def test_the_lock_holds_the_versions_that_were_tested() -> None:
    tested = pinned("constraints.txt")
    assert {
        name: version
        for name, version in pinned("requirements-serve.lock").items()
        if tested.get(name, version) != version
    } == {}


def test_the_lock_holds_all_that_serving_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {
        normal(re.split(r"[\[<>=;~! ]", one)[0])
        for one in project["optional-dependencies"]["serve"]
    }
    assert needed <= pinned("requirements-serve.lock").keys()


def test_no_index_is_named() -> None:
    for file in ("requirements-serve.lock", "constraints.txt"):
        lines = (ROOT / file).read_text().splitlines()
        assert not [line for line in lines if re.match(r"\s*(-i|--(extra-)?index|--find)", line)]
