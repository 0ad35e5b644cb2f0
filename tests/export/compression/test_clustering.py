import numpy as np

from export.compression.clustering import on_grid, reach_outermost


def test_every_channel_reaches_the_outermost_cluster() -> None:
    unit = np.array([[0.5, -0.7, 0.0], [-0.2, 0.5, 0.0], [0.1, 1.0, 0.0]], np.float32)
    found = reach_outermost(unit)
    np.testing.assert_allclose(np.abs(found).max(axis=0), [1.0, 1.0, 0.0])
    # Whole steps of 1/127, and no more values than before.
    np.testing.assert_allclose(found * 127, np.rint(found * 127), atol=1e-4)
    assert len(np.unique(found)) <= len(np.unique(unit))


def test_values_on_the_grid() -> None:
    np.testing.assert_allclose(on_grid(np.array([254.0, -1.2, 0.0])), [254.0, -2.0, 0.0])
    np.testing.assert_array_equal(on_grid(np.zeros(3)), np.zeros(3))
