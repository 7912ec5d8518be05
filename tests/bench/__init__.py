"""Benchmarks: each result is compared with a ceiling measured in the same run."""
