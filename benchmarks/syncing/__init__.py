"""The parts of `benchmarks/sync.py`: the data, the server, and who fills it."""
