"""The bins that token histograms are made of."""

import numpy as np

from analyzer.analysis.tokens.sums import GRID, grid_bins


def test_bins_by_arithmetic_are_those_of_a_search():
    rng = np.random.default_rng(0)
    drawn = 10 ** rng.uniform(-12, 5, 200_000)
    edges = np.concatenate([GRID, np.nextafter(GRID, 0), np.nextafter(GRID, np.inf), [1e-300]])
    for nats in (edges, drawn, drawn.astype(np.float32)):
        assert (grid_bins(nats) == np.minimum(np.searchsorted(GRID, nats, side="right") - 1, len(GRID) - 2)).all()
