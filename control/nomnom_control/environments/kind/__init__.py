"""kind: whole clusters on this machine, with everything that a pipeline needs in them."""
