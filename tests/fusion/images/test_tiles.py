"""Tiles: what is cut and joined again is the image."""

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.images.tiles import Tiles


@pytest.mark.parametrize("size", [(5, 3), (16, 16), (17, 40), (48, 33), (31, 100)])
@pytest.mark.parametrize("overlap", [0, 3, 7])
def test_joins_what_it_cut(size, overlap):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    tiles = Tiles((16, 20), overlap, 2)
    cut = tiles.cut(image)
    assert cut.shape[1:] == (16, 20, 3)
    enlarged = cut.repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(tiles.join(enlarged, size), image.repeat(2, 0).repeat(2, 1))


def test_what_is_near_an_inner_edge_is_thrown_away():
    tiles = Tiles((16, 16), 4, 1)
    image = np.zeros((16, 40, 3), np.uint8)
    cut = tiles.cut(image)
    # Each tile marks the 4 columns at its own edges.
    cut[:, :, :4] = cut[:, :, -4:] = 255
    joined = tiles.join(cut, (16, 40))
    assert (joined[:, 4:-4] == 0).all()
    assert (joined[:, :4] == 255).all() and (joined[:, -4:] == 255).all()


def test_refuses_an_overlap_that_leaves_nothing():
    with pytest.raises(UserError, match="overlap is 8; legal for tiles of 16x20: 0 to 7"):
        Tiles((16, 20), 8, 2)
