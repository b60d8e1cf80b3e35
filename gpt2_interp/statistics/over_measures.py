"""One error rate over several measures, each with its own adjusted p-values (Holm 1979)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def holm(p: Mapping[str, np.ndarray], level: float = 0.05) -> dict[str, np.ndarray]:
    """Return [unit] bool for each measure: p [unit], already adjusted over the measure's own units, NaN if undefined.

    The measures are taken in the order of their smallest p. The first of k measures is judged at level / k, the next
    one at level / (k - 1), and so on; the first whose smallest p is above its level ends it.
    """
    found = {name: np.zeros(np.shape(values), bool) for name, values in p.items()}
    smallest = {name: np.nanmin(values) for name, values in p.items() if np.isfinite(values).any()}
    for rank, name in enumerate(sorted(smallest, key=lambda name: (smallest[name], name))):
        allowed = level / (len(smallest) - rank)
        if smallest[name] > allowed:
            break
        found[name] = p[name] <= allowed
    return found
