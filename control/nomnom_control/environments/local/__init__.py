"""The local environment: the whole pipeline as processes of this machine, with no Docker."""
