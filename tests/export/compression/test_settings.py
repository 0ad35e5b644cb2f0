import pytest

from export.compression.settings import Compression
from fusion.base.program import UserError


def test_stages_are_those_asked_for_in_order() -> None:
    assert Compression(quantization_aware=True, sparsity=0.5).stages == ("pruning", "quantization")
    assert Compression(clusters=4, sparsity=0.5).stages == ("pruning", "clustering")
    assert Compression().stages == ()


@pytest.mark.parametrize("clusters", [1, 257, -2])
def test_clusters_out_of_range_are_refused(clusters: int) -> None:
    with pytest.raises(UserError, match=f"^compression: clusters is {clusters}; it is 0 for none, or 2 to 256"):
        Compression(clusters=clusters)


def test_two_clusters_beside_sparsity_are_too_few() -> None:
    Compression(clusters=2)
    with pytest.raises(UserError, match="clusters is 2; it is 0 for none, or 3 to 256, of which zero is one"):
        Compression(clusters=2, sparsity=0.5)


def test_clusters_are_not_trained_for_8_bits() -> None:
    with pytest.raises(UserError, match="clusters is 4, and quantization-aware training would part equal weights"):
        Compression(clusters=4, quantization_aware=True)
