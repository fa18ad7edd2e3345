"""Counts of the paper's data sets, and masks of few rows."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from ciess.masks.mask import PrefixMask

PERCENT = st.integers(1, 99).map(lambda share: Fraction(share, 100))


ML_1M, YELP2018 = 9_746, 69_716


def prefix(*sizes: int, max_size: int = 4) -> PrefixMask:
    return PrefixMask(np.array(sizes), max_size)
