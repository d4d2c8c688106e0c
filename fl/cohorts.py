"""Who is selected for a round: pure and seeded."""

import random
from collections.abc import Sequence


def select_cohort(names: Sequence[str], size: int, seed: int) -> list[str]:
    """Draw `size` devices without replacement, each equally likely.

    Args:
        names: of who is eligible, in any order; the draw depends on the set alone, and so not on who enrolled first.
        size: at most the number of names.
        seed: the same seed and set give the same cohort.

    Returns:
        Names in rising order: the place in this list is the cohort index.

    Raises:
        ValueError: there are fewer devices than `size`.
    """
    return sorted(random.Random(seed).sample(sorted(names), size))
