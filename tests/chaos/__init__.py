"""Faults on real processes, with an account of every accepted message: ``python -m tests.chaos``."""
