"""Cluster environments by name: saved ones, ``kind:CLUSTER`` and ``kube:CONTEXT``."""

from __future__ import annotations

from collections.abc import Sequence

from nomnom_control.environments import EnvironmentTemplate
from nomnom_control.environments.cluster.configuration import ClusterConfiguration, SavedEnvironment, read_configuration
from nomnom_control.environments.cluster.environment import KubeEnvironment
from nomnom_control.environments.cluster.kubeconfig import contexts
from nomnom_control.environments.cluster.names import open_saved, spelled
from nomnom_control.environments.cluster.templates import templates

_KIND, _KUBE = "kind:", "kube:"
_KIND_CONTEXT = "kind-"


class ClusterEnvironments:
    """Saved environments, ``kind:CLUSTER`` and ``kube:CONTEXT``, optionally with ``/NAMESPACE/RELEASE``.

    No method contacts a cluster.
    """

    def __init__(self) -> None:
        self._listed: dict[str, tuple[SavedEnvironment, ClusterConfiguration, KubeEnvironment]] = {}

    def names(self) -> Sequence[str]:
        """The saved environments, the kind clusters of the user's kubeconfig, and its other contexts."""
        saved = read_configuration().environments
        # A saved release with another name or namespace is a second pipeline: it does not replace its context.
        default = [each for each in saved.values() if each.namespace == each.release == "nomnom"]
        covered = {each.context for each in default} | {f"{_KIND_CONTEXT}{each.kind}" for each in default}
        rest = [each for each in contexts() if each not in covered]
        kinds = [f"{_KIND}{each.removeprefix(_KIND_CONTEXT)}" for each in rest if each.startswith(_KIND_CONTEXT)]
        return [*saved, *kinds, *(f"{_KUBE}{each}" for each in rest if not each.startswith(_KIND_CONTEXT))]

    def find(self, name: str) -> KubeEnvironment | None:
        """The environment of that name; None if it is neither saved nor of one of these forms."""
        configuration = read_configuration()
        if (saved := configuration.environments.get(name)) is not None:
            return open_saved(name, saved, configuration)
        for prefix in (_KIND, _KUBE):
            if name.startswith(prefix):
                return open_saved(name, spelled(name), configuration)
        return None

    def listed(self) -> list[KubeEnvironment]:
        """The saved environments and the kind clusters; other contexts of the kubeconfig only once selected."""
        configuration = read_configuration()
        saved = configuration.environments
        kept: dict[str, tuple[SavedEnvironment, ClusterConfiguration, KubeEnvironment]] = {}
        for name in self.names():
            if name not in saved and not name.startswith(_KIND):
                continue
            entry = saved.get(name) or spelled(name)
            known = self._listed.get(name)
            # An unchanged environment stays the same object, because it holds connections.
            if known is None or known[:2] != (entry, configuration):
                known = (entry, configuration, open_saved(name, entry, configuration))
            kept[name] = known
        self._listed = kept
        return [each[2] for each in kept.values()]

    def templates(self) -> Sequence[EnvironmentTemplate]:
        """A kind cluster and, if the kubeconfig has contexts, a release on one of them."""
        return templates()
