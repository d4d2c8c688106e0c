"""What `benchmarks/fanout.py` is made of: four servers, their publisher, the load generators, the tables."""
