import json
from typing import Any

import pytest

from export.compression.settings import Compression
from fusion.base.program import UserError


def test_options_go_through_json_and_back() -> None:
    asked = Compression(quantization_aware=False, clusters=16, sparsity=0.5, steps=7, seed=3)
    assert Compression.from_json(json.loads(json.dumps(asked.as_json()))) == asked
    assert Compression.from_json({}) == Compression()


def test_stages_are_those_asked_for_in_order() -> None:
    assert Compression().stages == ("quantization",)
    assert Compression(clusters=4, sparsity=0.5).stages == ("pruning", "clustering", "quantization")
    assert Compression(quantization_aware=False, sparsity=0.5).stages == ("pruning",)
    assert Compression(quantization_aware=False).stages == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("clusters", 1),
        ("clusters", 257),
        ("clusters", 8.0),
        ("clusters", True),
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("sparsity", float("nan")),
        ("sparsity", "0.5"),
        ("steps", 0),
        ("steps", 10.0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("inf")),
        ("seed", -1),
        ("quantization_aware", 1),
    ],
)
def test_a_value_out_of_range_is_named(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^compression: {option} is {value!r}; it is"):
        Compression(**{option: value})


def test_two_clusters_beside_sparsity_are_too_few() -> None:
    Compression(clusters=2)
    with pytest.raises(UserError, match="clusters is 2; it is 0 for none, or 3 to 256, of which zero is one"):
        Compression(clusters=2, sparsity=0.5)


def test_json_that_is_no_compression_is_refused() -> None:
    with pytest.raises(UserError, match="has no option 'cluster'; it has quantization_aware, clusters"):
        Compression.from_json({"cluster": 4})
    with pytest.raises(UserError, match=r"compression is \[\]; it is an object"):
        Compression.from_json([])
