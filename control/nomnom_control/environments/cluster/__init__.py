"""Pipelines on Kubernetes, read and changed through the API server of any context of a kubeconfig."""
