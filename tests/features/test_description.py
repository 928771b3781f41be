from __future__ import annotations

from features.bundle import Bundle
from features.description import describe, schema_summary


def test_says_what_a_bundle_holds(bundle: Bundle) -> None:
    text = describe(bundle)
    assert text.startswith("tiny version 3, exported ")
    assert "precision fp32, calibration platt" in text


def test_names_every_field_and_file(bundle: Bundle) -> None:
    lines = describe(bundle).splitlines()
    members = (*bundle.schema.fields, *bundle.schema.crosses)
    for name in [*(member.name for member in members), *bundle.manifest.files]:
        assert any(line.split()[:1] == [name] for line in lines), name


def test_a_cross_is_told_with_its_parts(bundle: Bundle) -> None:
    text = describe(bundle)
    assert "cross of city, item" in text
    assert "cross with embedding of age, city" in text
    entry = schema_summary(bundle.schema)[-3]
    assert entry["of"] == ["age", "city"]
    assert entry["indices"] == 40
