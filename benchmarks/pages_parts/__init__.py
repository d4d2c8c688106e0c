"""Parts of `benchmarks/pages.py`."""
