"""The parts of `benchmarks/point_in_time.py`: the data, and who competes on it."""
