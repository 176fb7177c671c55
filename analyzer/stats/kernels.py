"""Kernels between the traces of one problem, [N, N], for the one statistic T = s' K s of `permutation`.

All are built without a look at the labels and treat ties alike, whatever the order of the rows: a label can't reach a
kernel, so permuting labels within a problem is exact for each of them.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import squareform

NEIGHBOURS = 5


def distances(gram_NN: np.ndarray) -> np.ndarray:
    """Euclidean distances float64 [N, N] from inner products, exactly 0 for rows that agree to rounding (1e-6)."""
    square = np.diag(gram_NN)
    squared = square[:, None] + square[None, :] - 2 * gram_NN
    squared[squared < 1e-12 * max(float(square.max(initial=0.0)), 1e-300)] = 0.0
    return np.round(np.sqrt((squared + squared.T) / 2), 9)


def energy(distance_NN: np.ndarray) -> np.ndarray:
    """-D: s' K s is the squared energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo 2013)."""
    return -distance_NN


def nearest(distance_NN: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Symmetrised adjacency (A + A') / 2 of the nearest neighbours (Schilling 1986).

    Every row of A sums to min(neighbours, N - 1); those at the very distance of the last one share what is left of it.
    """
    n = len(distance_NN)
    count = min(neighbours, n - 1)
    if count < 1:
        return np.zeros((n, n))
    away = distance_NN + np.diag(np.full(n, np.inf))
    reach = np.partition(away, count - 1, axis=1)[:, count - 1 : count]
    closer, tied = away < reach, away == reach
    adjacency = closer + tied * ((count - closer.sum(1, keepdims=True)) / tied.sum(1, keepdims=True))
    return (adjacency + adjacency.T) / 2


def tree(distance_NN: np.ndarray) -> np.ndarray:
    """Symmetric adjacency of the minimum spanning tree (Friedman and Rafsky 1979).

    Ties between edges are broken by position: give the rows in an order that does not depend on the labels.
    """
    found = minimum_spanning_tree(distance_NN + 1.0).toarray() > 0  # + 1: an edge of length 0 is an edge
    return (found | found.T).astype(float)


def occupancy(cluster_N: np.ndarray) -> np.ndarray:
    """Z diag(1 / size) Z': with the weights of `permutation.signs`, s' K s is the chi-square of clusters by arm / N."""
    factor_NC = occupancy_factor(cluster_N)
    return factor_NC @ factor_NC.T


def occupancy_factor(cluster_N: np.ndarray) -> np.ndarray:
    """F = Z diag(size^-1/2), float64 [N, C], with F F' = `occupancy`: cheap for `permutation.factored`."""
    same = cluster_N[:, None] == np.unique(cluster_N)
    return same / np.sqrt(same.sum(0))


def clusters(distance_NN: np.ndarray, count: int) -> np.ndarray:
    """At most `count` clusters by Ward's linkage: int [N] from 0."""
    if len(distance_NN) < 2 or count < 2:
        return np.zeros(len(distance_NN), int)
    return fcluster(linkage(squareform(distance_NN, checks=False), "ward"), count, "maxclust") - 1
