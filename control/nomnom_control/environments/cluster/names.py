"""Open cluster environments: saved ones, and those named like ``kind:CLUSTER/NAMESPACE/RELEASE``."""

from __future__ import annotations

import shlex
from pathlib import Path

from nomnom_control.environments.cluster.configuration import ClusterConfiguration, SavedEnvironment
from nomnom_control.environments.cluster.environment import KubeEnvironment
from nomnom_control.environments.cluster.kubeconfig import contexts
from nomnom_control.errors import ControlError

DEFAULT_CLUSTER = "nomnom"
"""The kind cluster that is created if none is named."""


def spelled(name: str) -> SavedEnvironment:
    """The release that a name like ``kind:CLUSTER/NAMESPACE/RELEASE`` describes; raises ControlError."""
    kind, _, rest = name.partition(":")
    # The name of a context may contain slashes (an ARN, for example): the longest matching context is used.
    known = sorted((each for each in contexts() if rest == each or rest.startswith(f"{each}/")), key=len)
    where = known[-1] if kind == "kube" and known else rest.partition("/")[0]
    parts = rest.removeprefix(where).strip("/").split("/") if rest != where else []
    if not where or len(parts) > 2:
        raise ControlError(f"{name}: expected {kind}:WHERE, {kind}:WHERE/NAMESPACE or {kind}:WHERE/NAMESPACE/RELEASE")
    namespace = parts[0] if parts else "nomnom"
    release = parts[1] if len(parts) > 1 else "nomnom"
    if kind == "kind":
        return SavedEnvironment(kind=where, namespace=namespace, release=release)
    return SavedEnvironment(context=where, namespace=namespace, release=release)


def open_saved(name: str, saved: SavedEnvironment, configuration: ClusterConfiguration) -> KubeEnvironment:
    """The environment of a saved entry."""
    from nomnom_control.environments.kind.environment import KindEnvironment

    kubeconfig = Path(saved.kubeconfig).expanduser() if saved.kubeconfig else None
    options = {"values": shlex.join(saved.values)} if saved.values else {}
    if saved.kind:
        return KindEnvironment(
            saved.kind,
            configuration,
            name=name,
            namespace=saved.namespace,
            release=saved.release,
            kubeconfig=kubeconfig,
            options=options,
        )
    return KubeEnvironment(
        name,
        saved.context or None,
        configuration,
        namespace=saved.namespace,
        release=saved.release,
        kubeconfig=kubeconfig,
        options=options,
    )
