"""The cluster environments that there are by name: saved ones, and those that a name spells out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nomnom_control.environments import EnvironmentTemplate
from nomnom_control.environments.cluster.api import contexts
from nomnom_control.environments.cluster.configuration import ClusterConfiguration, SavedEnvironment, read_configuration
from nomnom_control.environments.cluster.environment import KubeEnvironment
from nomnom_control.errors import ControlError

DEFAULT_CLUSTER = "nomnom"
"""The kind cluster that is made where none is named."""
_KIND, _KUBE = "kind:", "kube:"
_KIND_CONTEXT = "kind-"


class ClusterEnvironments:
    """Saved environments, ``kind:CLUSTER`` and ``kube:CONTEXT``, each of the two with ``/NAMESPACE`` and ``/RELEASE``.

    Finding one asks no cluster anything.
    """

    def __init__(self) -> None:
        self._familiar: dict[str, tuple[SavedEnvironment, ClusterConfiguration, KubeEnvironment]] = {}

    def names(self) -> Sequence[str]:
        """The saved ones, the kind clusters of the user's kubeconfig, and its other contexts."""
        saved = read_configuration().environments
        # A release of another name is one more pipeline on the cluster, not the one that its context stands for.
        usual = [each for each in saved.values() if each.namespace == each.release == "nomnom"]
        taken = {each.context for each in usual} | {f"{_KIND_CONTEXT}{each.kind}" for each in usual}
        rest = [each for each in contexts() if each not in taken]
        kinds = [f"{_KIND}{each.removeprefix(_KIND_CONTEXT)}" for each in rest if each.startswith(_KIND_CONTEXT)]
        return [*saved, *kinds, *(f"{_KUBE}{each}" for each in rest if not each.startswith(_KIND_CONTEXT))]

    def find(self, name: str) -> KubeEnvironment | None:
        """The environment of that name; None where it is neither saved nor of such a form."""
        configuration = read_configuration()
        if (saved := configuration.environments.get(name)) is not None:
            return open_saved(name, saved, configuration)
        for prefix in (_KIND, _KUBE):
            if name.startswith(prefix):
                return open_saved(name, spelled(name), configuration)
        return None

    def templates(self) -> Sequence[EnvironmentTemplate]:
        """What can be made."""
        from nomnom_control.environments.cluster.templates import templates

        return templates()

    def familiar(self) -> list[KubeEnvironment]:
        """The saved environments and the kind clusters: those that may be looked at without being chosen."""
        configuration = read_configuration()
        saved = configuration.environments
        kept: dict[str, tuple[SavedEnvironment, ClusterConfiguration, KubeEnvironment]] = {}
        for name in self.names():
            if name not in saved and not name.startswith(_KIND):
                continue
            entry = saved.get(name) or spelled(name)
            known = self._familiar.get(name)
            # One that did not change stays the same object: it holds connections.
            if known is None or known[:2] != (entry, configuration):
                known = (entry, configuration, open_saved(name, entry, configuration))
            kept[name] = known
        self._familiar = kept
        return [each[2] for each in kept.values()]


def spelled(name: str) -> SavedEnvironment:
    """What a name like ``kind:CLUSTER/NAMESPACE/RELEASE`` spells out; raises ControlError."""
    kind, _, rest = name.partition(":")
    # A context's name may have slashes of its own (a cloud's ARN): the longest context that fits counts.
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
