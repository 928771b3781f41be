from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError
from features.field_spec import CategoricalSpec, LogBuckets, NumericSpec
from features.spec import Spec, load_spec, spec_from_json

HEAD = '[data]\ntrain = "log.parquet"\nlabel = "clicked"\n'
AGE = '[fields.age]\ntype = "numeric"\n'
CITY = '[fields.city]\ntype = "categorical"\n'


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads the spec of a text, with overrides."""

    def load_text(text: str, *overrides: str) -> Spec:
        (tmp_path / "shop.toml").write_text(text, encoding="utf-8")
        return load_spec(tmp_path / "shop.toml", overrides)

    return load_text


def test_a_short_spec_gets_the_documented_defaults(load: Any, tmp_path: Path) -> None:
    spec = load(HEAD + AGE + CITY)
    assert spec.name == "shop"
    assert spec.data.root == str(tmp_path)
    assert (spec.data.negative_sampling_rate, spec.data.list_separator) == (1.0, "|")
    assert spec.data.valid is spec.data.test is spec.data.group is spec.data.weight is None
    assert spec.fields == (NumericSpec(name="age"), CategoricalSpec(name="city"))
    assert {field.side for field in spec.fields} == {"candidate"}
    assert {field.missing for field in spec.fields} == {"bucket"}
    assert (spec.export.calibration, spec.export.precision) == ("auto", "fp32")


def test_every_key_of_a_field_is_read(load: Any) -> None:
    spec = load(
        HEAD
        + AGE
        + 'side = "context"\nbuckets = { log = 16 }\nmissing = "zero"\n'
        + '[fields.mass]\ntype = "numeric"\nencoding = "value"\ntransform = "log1p"\n'
        + '[fields.size]\ntype = "numeric"\nboundaries = [18, 25.5]\n'
        + CITY
        + 'min_count = 3\nmax_size = 9\nmulti = true\nmax_values = 4\npooling = "sum"\n'
    )
    age, mass, size, city = spec.fields
    assert age == NumericSpec(name="age", side="context", buckets=LogBuckets(16), missing="zero")
    assert mass == NumericSpec(name="mass", encoding="value", transform="log1p")
    assert size == NumericSpec(name="size", boundaries=(18.0, 25.5))
    assert city == CategoricalSpec(
        name="city", min_count=3, max_size=9, multi=True, max_values=4, pooling="sum"
    )


@pytest.mark.parametrize(
    ("text", "found", "nearest"),
    [
        ("[modle]\n" + HEAD + AGE, "modle", "model"),
        (HEAD + 'lable = "x"\n' + AGE, "data.lable", "label"),
        (HEAD + AGE + "bucket = 3\n", "fields.age.bucket", "buckets"),
        (HEAD + AGE + "min_count = 3\n", "fields.age.min_count", None),
        (HEAD + AGE + "buckets = { lgo = 3 }\n", "fields.age.buckets.lgo", "log"),
        (HEAD + AGE + "buckets = { log = 3, base = 2 }\n", "fields.age.buckets.base", "log"),
        (HEAD + CITY + "hash_bucket = 3\n", "fields.city.hash_bucket", "hash_buckets"),
        (HEAD + AGE + '[export]\nprecison = "int8"\n', "export.precison", "precision"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(
    load: Any, text: str, found: str, nearest: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert f"unknown key '{found}'; the nearest valid one is '" in caught.value.message
    if nearest:
        assert caught.value.message.endswith(f"'{nearest}'")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEAD + AGE + 'buckets = "many"\n', "fields.age.buckets"),
        (HEAD + AGE + "buckets = true\n", "fields.age.buckets"),
        (HEAD + AGE + "buckets = { log = 1.5 }\n", "fields.age.buckets.log"),
        (HEAD + AGE + "boundaries = [1, 'x']\n", "fields.age.boundaries[1]"),
        (HEAD + AGE + 'side = "user"\n', "fields.age.side"),
        (HEAD + AGE + 'missing = "drop"\n', "fields.age.missing"),
        (HEAD + CITY + "multi = 1\n", "fields.city.multi"),
        (HEAD + CITY + "vocabulary = [[1]]\n", "fields.city.vocabulary[0]"),
        (HEAD + "valid = 3\n" + AGE, "data.valid"),
        (HEAD + AGE + '[export]\nprecision = "fp16"\n', "export.precision"),
        ('[data]\nlabel = "clicked"\n' + AGE, "data"),
        ('[fields.age]\ntype = "number"\n' + HEAD, "fields.age.type"),
        ("[fields.age]\n" + HEAD, "fields.age.type"),
        ("name = 3\n" + HEAD + AGE, "name"),
        ("data = 3\n" + AGE, "data"),
        ("model = 3\n" + HEAD + AGE, "model"),
        (HEAD + "[fields]\nage = 3\n", "fields.age"),
    ],
)
def test_a_wrong_type_is_named_by_its_place(load: Any, text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.message.split("shop.toml: ")[1].startswith(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AGE + 'buckets = "many"\n', "fields.age.buckets: Expected `int | table`, got `str`"),
        (AGE + 'missing = "drop"\n', "expected one of bucket, zero, reject"),
        (
            AGE + 'encoding = "value"\ntransform = "log"\n',
            "expected one of none, log1p, standard",
        ),
        (AGE + '[export]\ncalibration = "plat"\n', "one of auto, none, platt, isotonic"),
        (AGE + '[fields.both]\ntype = "cross"\n', "fields.both: there is no key `of`"),
        ("[fields.agee]\nbuckets = 3\n", "fields.agee.type is missing, expected one of numeric"),
    ],
)
def test_a_wrong_value_is_told_in_words_of_toml(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(HEAD + text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("negative_sampling_rate = 0", "above 0 and at most at 1"),
        ("negative_sampling_rate = 1.5", "above 0 and at most at 1"),
        ('list_separator = ""', "must not be empty"),
        ('weight = "age"', "data.weight names the column of a field"),
    ],
)
def test_data_options_out_of_range_are_refused(load: Any, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(f"{HEAD}{line}\n{AGE}")


def test_the_label_cannot_be_a_field(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.label names the column of a field"):
        load(HEAD + '[fields.clicked]\ntype = "numeric"\n')


def test_there_must_be_something_to_rank(load: Any) -> None:
    with pytest.raises(ConfigError, match="nothing to rank"):
        load(HEAD + AGE + 'side = "context"\n')


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(load: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="name must be"):
        load(f'name = "{name}"\n{HEAD}{AGE}')


def test_a_field_may_be_called_anything(load: Any) -> None:
    spec = load(HEAD + '[fields."user age.é"]\ntype = "numeric"\n')
    assert spec.fields[0].name == "user age.é"


@pytest.mark.parametrize("escape", ['\\"', "\\\\", "\\n", "\\u0001"])
def test_a_name_that_json_must_escape_is_refused(load: Any, escape: str) -> None:
    with pytest.raises(ConfigError, match="no quotation mark, backslash or control character"):
        load(HEAD + AGE + f'[fields."a{escape}b"]\ntype = "numeric"\n')


def test_a_fields_name_is_that_of_its_table(load: Any) -> None:
    with pytest.raises(ConfigError, match="the table's own name"):
        load(HEAD + AGE + 'name = "years"\n')


def test_fields_keep_the_order_of_the_file(load: Any) -> None:
    spec = load(HEAD + CITY + AGE + '[fields.b]\ntype = "numeric"\n')
    assert [field.name for field in spec.fields] == ["city", "age", "b"]


def test_an_override_replaces_a_value_of_any_type(load: Any) -> None:
    spec = load(
        HEAD + AGE,
        "train.epochs=3",
        "data.group=request",
        "fields.age.boundaries=[1, 2.5]",
        'export.precision="int8"',
        "name=other",
    )
    assert spec.train == {"epochs": 3}
    assert spec.data.group == "request"
    assert spec.fields[0] == NumericSpec(name="age", boundaries=(1.0, 2.5))
    assert (spec.export.precision, spec.name) == ("int8", "other")


def test_an_override_leaves_its_neighbours_alone(load: Any) -> None:
    spec = load(HEAD + AGE + "[train]\nepochs = 2\nseed = 5\n", "train.epochs=3")
    assert spec.train == {"epochs": 3, "seed": 5}


@pytest.mark.parametrize("override", ["train.epochs", "=3", "a b=3"])
def test_an_override_of_another_form_is_refused(load: Any, override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        load(HEAD + AGE, override)


def test_an_overrides_unknown_key_is_refused(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'data\.lable'.*'label'"):
        load(HEAD + AGE, "data.lable=x")


def test_data_paths_start_from_the_specs_folder(load: Any, tmp_path: Path) -> None:
    spec = load(HEAD + 'root = "days"\n' + AGE)
    assert spec.data.location("a.csv") == str(tmp_path / "days" / "a.csv")


@pytest.mark.parametrize("path", ["/abs/a.csv", "s3://bucket/a.csv"])
def test_absolute_paths_and_urls_stand_as_they_are(load: Any, path: str) -> None:
    assert load(HEAD + AGE).data.location(path) == path


@pytest.mark.parametrize(
    ("root", "log"),
    [
        ("s3://bucket/logs", "s3://bucket/logs/log.parquet"),
        ("s3://bucket/logs/", "s3://bucket/logs/log.parquet"),
        ("memory://", "memory://log.parquet"),
    ],
)
def test_a_root_may_be_a_url(load: Any, root: str, log: str) -> None:
    for spec in (load(f'{HEAD}root = "{root}"\n{AGE}'), load(HEAD + AGE, f"data.root={root}")):
        assert spec.data.location(spec.data.train) == log


@pytest.mark.parametrize("overrides", [[], ["data.root=5"]])
def test_a_root_that_is_no_text_is_refused(load: Any, overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: Expected `str`, got `int`"):
        load(HEAD + ("" if overrides else "root = 5\n") + AGE, *overrides)


@pytest.mark.parametrize("written", ['group = "clicked"', 'weight = "clicked"'])
def test_one_column_is_not_label_and_group_or_weight(load: Any, written: str) -> None:
    with pytest.raises(ConfigError, match="must name different columns"):
        load(HEAD + written + "\n" + AGE)


def test_an_overridden_root_starts_from_the_working_folder(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    spec = load(HEAD + AGE, "data.root=days")
    assert spec.data.root == str(tmp_path / "here" / "days")


def test_a_spec_survives_json(load: Any) -> None:
    spec = load(HEAD + AGE + CITY + "[model]\nhidden = [8, 4]\n", "train.epochs=3")
    assert spec_from_json(spec.to_json()) == spec


def test_a_file_that_is_no_toml_is_refused(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"shop\.toml: cannot read the spec"):
        load("[data\n")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the spec: No such file"):
        load_spec(tmp_path / "none.toml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot read the spec"):
        load_spec(tmp_path / "bad.toml")
