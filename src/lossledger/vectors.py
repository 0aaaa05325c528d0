"""Names of the arrays of one axis that modules hand to each other."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Ids: TypeAlias = NDArray[np.uint64]
"""Fingerprints of batches."""
