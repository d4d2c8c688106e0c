"""What `benchmarks/transfers.py` is made of: a model of 200 MB, who has one to send, a stock server, clients."""
