"""Pipelines on Kubernetes: what a kubeconfig reaches, read and changed through the API server."""
