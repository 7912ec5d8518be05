"""kind: local Kubernetes clusters with everything that a pipeline needs."""
