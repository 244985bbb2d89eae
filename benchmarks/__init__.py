"""Benchmarks: demur and other programs do the same work, in one process, on the same weights and prompts."""
