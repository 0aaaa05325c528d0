"""What a reconciliation found, as its tests compare it."""

import numpy as np
import pytest

LAST = slice(3, 6)  # the second of two epochs of three batches: 32, 32 and 6 rows
ROWS = np.array([32.0, 32.0, 6.0])


def folded(result):
    """Amounts by cause and kind."""
    return {(each.cause, each.kind): each.amount for each in result.causes}


def exact(result):
    assert {each.kind for each in result.causes} <= {"exact"}
    assert abs(result.unexplained) <= 1e-6 * abs(result.b.value)
    return {each.cause: each.amount for each in result.causes}


def close(found, wanted, size=1.0):
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6 * size)


def float32(columns, part=LAST):
    return columns["loss"].astype("f4").astype("f8")[part]
