"""The parts of `benchmarks/load.py`: what is written, and the process that reads."""
