"""`report.html`: what a person wants to know of a run, in one file that fetches nothing.

The page is the template `report.html` beside this file; here are the numbers that it shows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import jinja2
import tomli_w
from markupsafe import Markup

from model.calibrate import Calibration, fit_calibration
from model.charts import curve_chart, histogram, reliability_chart
from model.config import configs
from model.field_table import field_rows
from model.importance import permutation_importance
from model.metrics import evaluate
from model.reliability import Reliability, reliability
from model.run import Judged, Run

REPORT_FILE = "report.html"
_DASH = "\N{EN DASH}"
# What calibration changes; everything else judges the order of rows, which it leaves alone.
_OF_PROBABILITIES = ("log_loss", "ece", "copc")
_NAMES = {
    "auc": ("AUC", "chance that a clicked row outranks an unclicked one"),
    "pr_auc": ("PR-AUC", "average precision over all clicked rows"),
    "gauc": ("GAUC", "AUC inside each group, averaged over rows"),
    "gauc_coverage": ("GAUC coverage", "share of rows in groups with both labels"),
    "ndcg@10": ("NDCG@10", "ranking inside each group with a click"),
    "mrr": ("MRR", "mean of 1 / rank of the first click in a group"),
    "log_loss": ("Log loss", "nats per row; less is better"),
    "ece": ("ECE", "mean distance of predicted and observed CTR; less is better"),
    "copc": ("COPC", "predicted clicks / observed clicks; 1 is best"),
}
_CURVES = {
    "loss": "training loss",
    "log_loss": "validation log loss",
    "auc": "validation AUC",
    "gauc": "validation GAUC",
}
# The CSS classes of the two curves, and what they are called.
_TITLES = {"before": "Uncalibrated", "after": "Calibrated"}


@dataclass(frozen=True)
class _Part:
    """Judged rows before and after calibration."""

    name: str
    rows: int
    clicks: int
    before: dict[str, float]
    after: dict[str, float]
    curve_before: Reliability
    curve_after: Reliability


def write_report(run: Run, file: Path) -> None:
    """Write the report of a run; reads nothing but the run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number}
    page = environment.get_template(REPORT_FILE).render(_view(run))
    file.write_text(page, encoding="utf-8")


def percent(share: float | None) -> str:
    """A share with one decimal; what is there but rounds to nothing is said to be there."""
    if share is None:
        return _DASH
    if share == 0:
        return "0 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Four decimals, with a true minus; a dash for what could not be measured."""
    if value is None or not isfinite(value):
        return _DASH
    text = f"{value:.4f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else "0.0000"


def _view(run: Run) -> dict[str, Any]:
    calibration = fit_calibration(run.spec.export.calibration, run.valid.logit, run.valid.label)
    parts = [_part("validation", run.valid, calibration)]
    if run.test is not None:
        parts.append(_part("test", run.test, calibration))
    measured = [name for name in _NAMES if any(name in part.before for part in parts)]
    measured += sorted({name for part in parts for name in part.before} - _NAMES.keys())
    drops, judged_rows = _importance(run)
    bars = _bar_lengths(drops)
    return {
        "run": run,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "calibration": calibration,
        "parts": parts,
        "names": {name: _NAMES.get(name, (name, "")) for name in measured},
        "of_order": [name for name in measured if name not in _OF_PROBABILITIES],
        "of_probabilities": [name for name in measured if name in _OF_PROBABILITIES],
        "curves": _curves(run.metrics),
        "reliability": [reliability_chart(_drawn(parts[-1]), is_log) for is_log in (False, True)],
        "drawn": [(_TITLES[kind], _buckets(curve)) for kind, curve in _drawn(parts[-1]).items()],
        "fields": [
            (row, histogram(row.bars), drops.get(row.name), bars.get(row.name, 0))
            for row in field_rows(run.schema, run.counts, run.rows)
        ],
        "judged_rows": judged_rows,
        "spec": _spec_toml(run),
    }


def _part(name: str, judged: Judged, calibration: Calibration) -> _Part:
    before, after = (
        fitted.score(judged.logit, shifted=False) for fitted in (Calibration("none"), calibration)
    )
    return _Part(
        name,
        len(judged.label),
        int(judged.label.sum()),
        evaluate(judged.logit, before, judged.label, judged.group),
        evaluate(judged.logit, after, judged.label, judged.group),
        reliability(before, judged.label),
        reliability(after, judged.label),
    )


def _drawn(part: _Part) -> dict[str, Reliability]:
    """The curves by CSS class; one where calibration changed nothing."""
    curves = {"before": part.curve_before, "after": part.curve_after}
    return curves if part.after != part.before else {"before": part.curve_before}


def _buckets(curve: Reliability) -> list[tuple[float, ...]]:
    """Rows, mean score and CTR of every bucket."""
    columns = (curve.rows, curve.predicted, curve.observed)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _curves(metrics: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Captions and charts of what every epoch measured."""
    history = metrics["history"]
    return [
        (label, curve_chart([entry[key] for entry in history], metrics["best_epoch"], label))
        for key, label in _CURVES.items()
        if all(key in entry for entry in history)
    ]


def _importance(run: Run) -> tuple[dict[str, float], int]:
    if run.judged is None:
        return {}, 0
    return permutation_importance(run.network, run.schema, run.judged)


def _bar_lengths(drops: dict[str, float]) -> dict[str, float]:
    """In percent of the longest; none for a field without which the AUC rose."""
    most = max((drop for drop in drops.values() if isfinite(drop)), default=0)
    return {name: 100 * drop / most for name, drop in drops.items() if 0 < drop <= most}


def _spec_toml(run: Run) -> str:
    """The spec as trained with, defaults of `[model]` and `[train]` included."""
    model, train = configs(run.spec)
    # TOML has no null: an option left open is left out.
    written = {
        name: {k: v for k, v in dataclasses.asdict(table).items() if v is not None}
        for name, table in (("model", model), ("train", train))
    }
    return tomli_w.dumps(run.spec.to_json() | written)
