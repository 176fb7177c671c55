"""How processor time grows with size: a ratio, which a slow or busy machine leaves as it is."""

from __future__ import annotations

import gc
import time


def growth(work, small, large) -> float:
    """Processor time of work(large) over that of work(small), each the best of three, without the garbage collector."""
    return _best(work, large) / max(_best(work, small), 1e-4)


def _best(work, size) -> float:
    spent = []
    for _ in range(3):
        gc.collect()
        gc.disable()
        try:
            since = time.process_time()
            work(size)
            spent.append(time.process_time() - since)
        finally:
            gc.enable()
    return min(spent)
