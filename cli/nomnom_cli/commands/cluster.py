"""``nomnom kind``, ``install``, ``upgrade``, ``uninstall``, ``env`` and ``images``: pipelines on Kubernetes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nomnom_cli.options import LOCAL, SOURCES, Flag, Json, Where, Yes, open_environment
from nomnom_cli.prompts import UsageError, confirm

if TYPE_CHECKING:
    from nomnom_control.environments import Environment
    from nomnom_control.environments.cluster.environment import KubeEnvironment
    from nomnom_control.environments.kind.environment import KindEnvironment

_Text = Annotated[str | None, Parameter(show_default=False)]
_Values = Annotated[list[str] | None, Parameter(name=("--values", "-f"), show_default=False, negative="")]
_Set = Annotated[list[str] | None, Parameter(name="--set", show_default=False, negative="")]


class _Clusters:
    """The source of cluster environments; what it needs is imported when one is asked for."""

    def names(self) -> Sequence[str]:
        from nomnom_control.environments.cluster.saved import ClusterEnvironments

        return ClusterEnvironments().names()

    def find(self, name: str) -> Environment | None:
        from nomnom_control.environments.cluster.saved import ClusterEnvironments

        return ClusterEnvironments().find(name)


SOURCES.append(_Clusters())


async def create(
    name: Annotated[str, Parameter(show_default=False)] = "nomnom",
    /,
    *,
    values: _Values = None,
    single: _Set = None,
    bare: Flag = False,
) -> None:
    """Make a kind cluster with everything in it, until the pipeline is ready.

    Cluster, add-ons (KEDA, metrics-server, ingress), images, chart. What is there already is left as it is: a run that
    was interrupted or failed is simply repeated. NOMNOM_NODE_IMAGE and NOMNOM_ADDONS replace the node image and the
    add-ons' manifests.

    Parameters
    ----------
    name
        The cluster's name.
    values
        Values files: dev, prod, tpch, ecommerce or paths; dev by default.
    single
        Single values: name=value.
    bare
        The cluster, its add-ons and images, without the pipeline.
    """
    from nomnom_cli.output import show_progress, tell

    here = _kind(name)
    here.with_options(_options(values, single))
    await show_progress(here.prepare() if bare else here.start())
    tell(f"the cluster is ready: nomnom --env kind:{name} is the app on it; nomnom env use kind:{name} keeps to it")
    await here.close()


async def delete(name: Annotated[str, Parameter(show_default=False)] = "nomnom", /, *, yes: Yes = False) -> None:
    """Delete a kind cluster with everything in it.

    Parameters
    ----------
    name
        The cluster's name.
    """
    from nomnom_cli.output import show_progress

    here = _kind(name)
    confirm(f"Delete the kind cluster {name}?", here.losses(), yes=yes, typed=name)
    await show_progress(here.destroy())


async def load(name: Annotated[str, Parameter(show_default=False)] = "nomnom", /) -> None:
    """Load the pipeline's images into a kind cluster, whatever it has.

    Parameters
    ----------
    name
        The cluster's name.
    """
    from nomnom_cli.output import show_progress

    here = _kind(name)
    await show_progress(here.load(again=True))
    await here.close()


async def install(*, values: _Values = None, single: _Set = None, yes: Yes = False, where: Where | None = None) -> None:
    """Install the pipeline on the cluster of --env, or bring what is there to these values.

    Without values those of before are kept.

    Parameters
    ----------
    values
        Values files: dev, prod, tpch, ecommerce or paths.
    single
        Single values: name=value.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(where)
    here.with_options(_options(values, single))
    confirm(f"Install on {here.location}?", here.plan("start"), yes=yes)
    await show_progress(here.start())
    await here.close()


async def upgrade(*, values: _Values = None, single: _Set = None, yes: Yes = False, where: Where | None = None) -> None:
    """Upgrade the release to this chart and these values, pod by pod.

    Without values those of before are kept, and so is a scaling policy that was changed by nomnom scale.

    Parameters
    ----------
    values
        Values files: dev, prod, tpch, ecommerce or paths.
    single
        Single values: name=value.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(where)
    if not await here.helm.history():
        raise UsageError(f"nothing is installed on {here.location}: nomnom install does that")
    action, options = next(each for each in here.actions() if each.name == "upgrade"), _options(values, single)
    confirm(f"{action.title} on {here.location}?", action.plan(options), yes=yes)
    await show_progress(action.begin(options))
    await here.close()


async def uninstall(*, keep_data: Flag = False, yes: Yes = False, where: Where | None = None) -> None:
    """Remove the pipeline from the cluster of --env.

    Parameters
    ----------
    keep_data
        Leave the volume claims: an installation of the same name finds its data again.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(where)
    losses = (f"the pipeline on {here.location}; its volume claims stay",) if keep_data else here.losses()
    confirm(f"Uninstall {here.release.name}?", losses, yes=yes)
    await show_progress(here.installation.uninstall(data=not keep_data))
    await here.close()


async def list_environments(*, json: Json = False) -> None:
    """The environments that can be named by --env. No cluster is asked."""
    from nomnom_cli.output import Column, as_json, show_table
    from nomnom_control.environments.cluster.configuration import read_configuration

    names = [LOCAL, *(each for source in SOURCES for each in source.names())]
    chosen = Where().name
    saved = read_configuration().environments
    found = [{"name": each, "used": each == chosen, "saved": each in saved, **_place(each)} for each in names]
    if json:
        as_json(found)
        return
    columns = (Column(""), Column("NAME"), Column("KIND"), Column("WHERE", grows=True))
    rows = [("▸" if each["used"] else "", str(each["name"]), str(each["kind"]), str(each["where"])) for each in found]
    show_table(columns, rows, "no environments")


async def use(name: str, /) -> None:
    """Use an environment wherever no --env is given.

    Parameters
    ----------
    name
        Its name (nomnom env ls); local for this machine's.
    """
    from nomnom_cli.output import tell
    from nomnom_control.environments.cluster.configuration import use_environment

    here = open_environment(Where(env=name))
    use_environment("" if here.kind == LOCAL else name)
    tell(f"commands and the app are now about {here.name}: {here.location}")


async def add(
    name: str,
    /,
    *,
    context: _Text = None,
    kind: _Text = None,
    namespace: str = "nomnom",
    release: str = "nomnom",
    kubeconfig: _Text = None,
    values: _Values = None,
) -> None:
    """Give a release on a cluster a name.

    Parameters
    ----------
    name
        The name.
    context
        A context of the kubeconfig.
    kind
        Or a kind cluster.
    namespace
        The release's namespace.
    release
        The release's name.
    kubeconfig
        Another kubeconfig than the user's.
    values
        The values files that it is installed with.
    """
    from nomnom_cli.output import tell
    from nomnom_control.environments.cluster.configuration import SavedEnvironment, configuration_path, save_environment

    if (context is None) == (kind is None):
        raise UsageError("name a --context or a --kind cluster")
    if name == LOCAL or ":" in name:
        raise UsageError(f"{name!r} is no name for an environment: local and names with a colon are taken")
    entry = SavedEnvironment(kind or "", context or "", namespace, release, kubeconfig or "", tuple(values or ()))
    save_environment(name, entry)
    tell(f"{name} is kept in {configuration_path()}")


async def forget(name: str, /) -> None:
    """Forget the name of an environment; nothing else is changed.

    Parameters
    ----------
    name
        Its name.
    """
    from nomnom_control.environments.cluster.configuration import read_configuration, save_environment

    if name not in read_configuration().environments:
        raise UsageError(f"no saved environment {name!r} (nomnom env ls)")
    save_environment(name, None)


async def build(*names: str) -> None:
    """Build the pipeline's images with docker.

    NOMNOM_IMAGE_REGISTRY and NOMNOM_IMAGE_TAG say how they are named; NOMNOM_BASE_PYTHON, NOMNOM_BASE_NODE
    and NOMNOM_BASE_NGINX, what they are built on.

    Parameters
    ----------
    names
        Images; all by default.
    """
    from nomnom_cli.output import Column, show_progress, show_table
    from nomnom_control.environments.cluster.configuration import IMAGES, read_configuration
    from nomnom_control.environments.cluster.images import build_images, image_sizes

    configuration = read_configuration()
    await show_progress(build_images(configuration, names or IMAGES))
    sizes = await image_sizes(configuration)
    rows = [(configuration.image(name), size) for name, size in sizes.items()]
    show_table((Column("IMAGE", grows=True), Column("SIZE", right=True)), rows, "no images")


def _kind(name: str) -> KindEnvironment:
    from nomnom_control.environments.cluster.configuration import read_configuration
    from nomnom_control.environments.kind.environment import KindEnvironment

    return KindEnvironment(name, read_configuration())


def _cluster(where: Where | None) -> KubeEnvironment:
    """The cluster environment of the options; raises UsageProblem for this machine's."""
    from nomnom_control.environments.cluster.environment import KubeEnvironment

    here = open_environment(where)
    if not isinstance(here, KubeEnvironment):
        raise UsageError("name a cluster with --env: kind:CLUSTER, kube:CONTEXT, or a name of nomnom env ls")
    return here


def _options(values: Sequence[str] | None, single: Sequence[str] | None) -> dict[str, str]:
    given = {"values": shlex.join(values or ()), "set": shlex.join(single or ())}
    return {name: text for name, text in given.items() if text}


def _place(name: str) -> dict[str, str]:
    here = open_environment(Where(env=name))
    return {"kind": here.kind, "where": here.location}
