"""The parts of `benchmarks/online_read.py`: the store, and who reads from it."""
