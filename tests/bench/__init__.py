"""Benchmarks: what is measured is compared with a ceiling in the same run."""
