"""What a file of losses that another tool wrote says, and what it can't say.

`read` gives a file's series, each with the statistic that its numbers are.
"""

from lossledger.explain.explained import Explained, Series
from lossledger.explain.reader import read

__all__ = ["Explained", "Series", "read"]
