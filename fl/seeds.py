"""Where randomness comes from: SHA-256 of run seed, round, purpose and cohort index, and nothing else."""

import hashlib


def derive_seed(run_seed: int, round_number: int, purpose: str, cohort_index: int = 0) -> int:
    """Return a seed in [0, 2^63) that is the same wherever and whenever it is derived."""
    text = f"{run_seed}/{round_number}/{purpose}/{cohort_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def model_seed(run_seed: int) -> int:
    """Return the seed of a run's initial weights."""
    return derive_seed(run_seed, 0, "model")


def cohort_seed(run_seed: int, round_number: int) -> int:
    """Return the seed that selects the cohort of a round."""
    return derive_seed(run_seed, round_number, "cohort")


def training_seed(run_seed: int, round_number: int, cohort_index: int) -> int:
    """Return the seed of one device's training in a round."""
    return derive_seed(run_seed, round_number, "training", cohort_index)
