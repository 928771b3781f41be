from __future__ import annotations

import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from features.bundle import Bundle
from features.spec import load_spec, spec_from_json
from model.report import number, percent, write_report
from model.run import Run, load_run
from model.train import train
from tests.model.small import small_columns, write_small

VOID = {"meta", "br"}
DASH = "\N{EN DASH}"


class Page(HTMLParser):
    """What a report holds: its elements, the texts of its tables and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "elements left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data.strip()

    def row(self, first: str) -> list[str]:
        """Cells of the table row that begins so."""
        return next(row for row in self.rows if row[0] == first)


def report_of(run: Run, folder: Path) -> Page:
    write_report(run, folder / "again.html")
    return Page((folder / "again.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    """Of every kind of field: buckets, value, vocabulary, hashed, multi; no test part."""
    return load_run(run_folder)


@pytest.fixture(scope="module")
def page(run_folder: Path) -> Page:
    return Page((run_folder / "report.html").read_text(encoding="utf-8"))


def test_training_leaves_a_page_that_fetches_nothing(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & {"src", "href", "srcset", "data", "action", "onload", "onclick"}
    for address in ("http:", "https:", "url(", "@import"):
        assert address not in page.source
    policy = [values.get("content") for tag, values in page.tags if tag == "meta"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy


def test_page_holds_every_part(page: Page) -> None:
    for heading in ("Metrics", "Epochs", "Reliability", "Fields", "Spec"):
        assert f"<h2>{heading}</h2>" in page.source
    drawings = [values["aria-label"] for tag, values in page.tags if tag == "svg"]
    for label in ("training loss", "validation log loss", "validation AUC", "validation GAUC"):
        assert any(str(drawing).startswith(f"{label} per epoch") for drawing in drawings)
    assert sum("Observed click rate" in str(drawing) for drawing in drawings) == 2


def test_every_table_has_a_caption_and_headed_columns(page: Page) -> None:
    tables = page.source.count("<table>")
    assert tables == page.source.count("<caption>") == page.source.count("<thead>") > 4


def test_metrics_are_those_of_the_run(run: Run, page: Page) -> None:
    valid = run.metrics["valid"]
    assert page.row("AUC")[1] == f"{valid['auc']:.4f}"
    assert page.row("GAUC")[1] == f"{valid['gauc']:.4f}"
    assert page.row("Log loss")[1] == f"{valid['log_loss']:.4f}"
    assert page.row("ECE")[1] == f"{valid['ece']:.4f}"


def test_calibration_is_the_one_that_export_fits(page: Page, bundle: Bundle) -> None:
    calibrated = bundle.manifest.metrics["calibrated"]["valid"]
    assert page.row("Log loss")[2] == f"{calibrated['log_loss']:.4f}"
    assert page.row("ECE")[2] == f"{calibrated['ece']:.4f}"
    assert "(method: platt)" in page.text


def test_without_test_rows_the_page_says_on_what_it_judges(page: Page) -> None:
    assert "The calibration was fitted on these very rows" in page.text
    assert "120\nvalidation rows" in page.text or "120 validation rows" in page.text


def test_test_rows_are_shown_where_there_are_some(tmp_path: Path) -> None:
    spec = write_small(tmp_path, overrides=("data.test=log.parquet",))
    page = Page((train(spec, tmp_path / "run") / "report.html").read_text(encoding="utf-8"))
    assert page.row("metric") == ["metric", "validation", "test"]
    assert "fitted on these very rows" not in page.text
    assert "200 test rows" in page.text


@pytest.mark.parametrize(
    ("field", "side", "kind", "size"),
    [
        ("age", "context", "4 buckets", "4"),
        ("income", "context", "value, transform standard", "1"),
        ("city", "context", "vocabulary", "8"),
        ("history", "context", "vocabulary, up to 3, mean", "9"),
        ("shop", "candidate", "7 hash buckets", "7"),
        ("tags", "candidate", "vocabulary, up to 2, sum", "9"),
    ],
)
def test_fields_of_every_kind_have_a_line(
    page: Page, field: str, side: str, kind: str, size: str
) -> None:
    assert page.row(field)[:4] == [field, side, kind, size]


def test_crosses_are_counted_beside_the_fields(page: Page) -> None:
    assert "and 3 crosses," in page.text
    assert "crosses have none, their parts have" in " ".join(page.text.split())


def test_spec_is_toml_with_every_default(run: Run, page: Page) -> None:
    written = tomllib.loads(page.text.partition("written out.")[2])
    assert written["name"] == "tiny"
    assert written["fields"]["tags"]["max_values"] == 2
    assert written["model"]["hidden"] == [8, 4]
    assert written["train"]["patience"] == 2
    assert spec_from_json(written).fields == run.spec.fields


def test_names_and_categories_are_shown_as_they_are_and_run_nothing(tmp_path: Path) -> None:
    """A field's name and a category are text of users."""
    name, category = "<script>alert(1)</script>", "</title><img src=x onerror=alert(2)>"
    columns = small_columns()
    columns[name] = np.where(columns["item"] > 2, category, "b & c")
    write_small(tmp_path, columns)
    text = (tmp_path / "spec.toml").read_text()
    text = text.replace("[model]", f'[fields."{name}"]\ntype = "categorical"\n[model]')
    (tmp_path / "spec.toml").write_text(text)
    folder = train(load_spec(tmp_path / "spec.toml"), tmp_path / "run")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert page.row(name)[1:3] == ["candidate", "vocabulary"]
    assert f"{category}: " in page.text


def test_one_epoch_without_context_or_group_is_reported(tmp_path: Path) -> None:
    write_small(tmp_path)
    text = (tmp_path / "spec.toml").read_text().replace('side = "context"\n', "")
    (tmp_path / "spec.toml").write_text(text.replace('group = "request"\n', ""))
    spec = load_spec(tmp_path / "spec.toml", ("train.epochs=1",))
    page = Page((train(spec, tmp_path / "run") / "report.html").read_text(encoding="utf-8"))
    assert page.row("age")[1] == "candidate"
    assert "validation GAUC" not in page.source


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_label_are_reported_with_dashes(run: Run, tmp_path: Path, label: int) -> None:
    assert run.judged is not None
    ones = np.full(120, label, np.float32)
    one = replace(
        run,
        valid=replace(run.valid, label=ones),
        test=replace(run.valid, label=ones),
        judged=replace(run.judged, label=ones),
    )
    page = report_of(one, tmp_path)
    assert page.row("item")[6] == DASH
    assert "nan" not in page.source


def test_run_of_a_version_without_judged_rows_is_reported(run: Run, tmp_path: Path) -> None:
    page = report_of(replace(run, judged=None), tmp_path)
    assert page.row("item")[6] == DASH


def test_uncalibrated_run_shows_one_curve(run: Run, tmp_path: Path) -> None:
    spec = replace(run.spec, export=replace(run.spec.export, calibration="none"))
    page = report_of(replace(run, spec=spec), tmp_path)
    assert 'circle class="after"' not in page.source
    assert "export adds no calibration" in page.text


def test_metric_that_nobody_described_is_shown_by_its_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.report.evaluate", lambda *_: {"auc": 0.7, "new_metric": 0.25})
    page = report_of(run, tmp_path)
    assert page.row("new_metric") == ["new_metric", "0.2500"]
    assert page.row("AUC") == ["AUC", "0.7000"]


def test_shares_and_numbers_are_rounded_honestly() -> None:
    assert [percent(share) for share in (None, 0.0, 0.0001, 0.0312, 1.0)] == [
        DASH, "0 %", "< 0.1 %", "3.1 %", "100.0 %",
    ]  # fmt: skip
    assert [number(value) for value in (None, float("nan"), 0.12345, -0.5, -0.00001)] == [
        DASH, DASH, "0.1235", "\N{MINUS SIGN}0.5000", "0.0000",
    ]  # fmt: skip
