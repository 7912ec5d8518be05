"""The local environment: the whole pipeline as processes on this machine, without Docker."""
