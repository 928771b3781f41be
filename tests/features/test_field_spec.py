from __future__ import annotations

import tomllib

import pytest

from features.errors import ConfigError
from features.spec import spec_from_json

HEAD = '[data]\ntrain = "log.parquet"\nlabel = "clicked"\n'
AGE = '[fields.age]\ntype = "numeric"\n'
CITY = '[fields.city]\ntype = "categorical"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AGE + "buckets = 4\nboundaries = [1]\n", "buckets or boundaries, not both"),
        (AGE + 'encoding = "value"\nbuckets = 4\n', "neither buckets nor boundaries"),
        (AGE + 'encoding = "value"\nbuckets = 0\n', "neither buckets nor boundaries"),
        (AGE + 'encoding = "value"\nboundaries = []\n', "neither buckets nor boundaries"),
        (AGE + 'transform = "log1p"\n', 'transform needs encoding = "value"'),
        (AGE + "buckets = 0\n", "buckets must be at least 1"),
        (AGE + "buckets = { log = 0 }\n", "log must be at least 1"),
        (AGE + "boundaries = [1, 1]\n", "strictly increasing"),
        (AGE + "boundaries = [2, 1]\n", "strictly increasing"),
        (AGE + "boundaries = [1, inf]\n", "boundaries must be finite"),
        (AGE + "boundaries = [nan]\n", "boundaries must be finite"),
        (CITY + "min_count = 2\nhash_buckets = 4\n", "exclude each other"),
        (CITY + 'max_size = 2\nvocabulary = ["a"]\n', "exclude each other"),
        (CITY + 'hash_buckets = 2\nvocabulary = ["a"]\n', "exclude each other"),
        (CITY + 'hash_buckets = 2\nunknown = "zero"\n', "unknown does not apply"),
        (CITY + 'min_count = 2\nunknown = "reject"\n', "would refuse rare training rows"),
        (CITY + 'max_size = 2\nunknown = "reject"\n', "would refuse rare training rows"),
        (CITY + "max_values = 3\n", "need multi = true"),
        (CITY + 'pooling = "sum"\n', "need multi = true"),
        (CITY + "min_count = 0\n", "min_count must be at least 1"),
        (CITY + "hash_buckets = 0\n", "hash_buckets must be at least 1"),
        (CITY + "multi = true\nmax_values = 0\n", "max_values must be at least 1"),
        (CITY + 'vocabulary = ["1", 1.0]\n', "lists a category twice"),
        (CITY + "vocabulary = [9007199254740993]\n", "within 2^53"),
    ],
)
def test_options_that_contradict_each_other_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_json({"name": "shop", **tomllib.loads(HEAD + text)})
    assert message in caught.value.message
    assert caught.value.message.startswith("fields.")
