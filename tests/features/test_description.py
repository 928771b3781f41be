from __future__ import annotations

from features.bundle import Bundle
from features.description import describe


def test_says_what_a_bundle_holds(bundle: Bundle) -> None:
    text = describe(bundle)
    assert text.startswith("tiny version 3, exported ")
    assert "precision fp32, calibration platt" in text


def test_names_every_field_and_file(bundle: Bundle) -> None:
    lines = describe(bundle).splitlines()
    for name in [*(field.name for field in bundle.schema.fields), *bundle.manifest.files]:
        assert any(line.split()[:1] == [name] for line in lines), name
