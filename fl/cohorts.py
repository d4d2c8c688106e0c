"""Who is selected for a round: pure and seeded."""

import random
from collections.abc import Sequence


def select_cohort(device_ids: Sequence[int], size: int, seed: int) -> list[int]:
    """Draw `size` devices without replacement, each equally likely.

    Args:
        device_ids: who is eligible, in any order; the draw depends on the set alone.
        size: at most the number of ids.
        seed: the same seed and set give the same cohort.

    Returns:
        Device ids in rising order: the place in this list is the cohort index.

    Raises:
        ValueError: there are fewer devices than `size`.
    """
    return sorted(random.Random(seed).sample(sorted(device_ids), size))
