"""``nomnom kind``, ``install``, ``upgrade``, ``uninstall``, ``env`` and ``images``: pipelines on Kubernetes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nomnom_cli.options import Flag, Json, Target, Yes, open_environment
from nomnom_cli.prompts import UsageError, confirm

if TYPE_CHECKING:
    from nomnom_control.environments.cluster.environment import KubeEnvironment
    from nomnom_control.environments.kind.environment import KindEnvironment

_Text = Annotated[str | None, Parameter(show_default=False)]
_Values = Annotated[list[str] | None, Parameter(name=("--values", "-f"), show_default=False, negative="")]
_Set = Annotated[list[str] | None, Parameter(name="--set", show_default=False, negative="")]


async def create(
    name: Annotated[str, Parameter(show_default=False)] = "nomnom",
    /,
    *,
    values: _Values = None,
    single: _Set = None,
    bare: Flag = False,
) -> None:
    """Create a kind cluster with a pipeline, and wait until it is ready.

    Steps: cluster, add-ons (KEDA, metrics-server, ingress), images, chart. Re-run it after a failure; finished steps
    are skipped. NOMNOM_NODE_IMAGE and NOMNOM_ADDONS replace the node image and the add-on manifests.

    Parameters
    ----------
    name
        Cluster name.
    values
        Values files: dev, prod, tpch, ecommerce or paths. Default: dev.
    single
        Single values: name=value. Repeatable.
    bare
        Create the cluster with add-ons and images only, without a pipeline.
    """
    from nomnom_cli.output import print_result, show_progress

    here = _kind(name)
    here.with_options(_options(values, single))
    await show_progress(here.prepare() if bare else here.start())
    print_result(
        f"the cluster is ready; open the app with `nomnom --env kind:{name}`, "
        f"or make it the default with `nomnom env use kind:{name}`"
    )
    await here.close()


async def delete(name: Annotated[str, Parameter(show_default=False)] = "nomnom", /, *, yes: Yes = False) -> None:
    """Delete a kind cluster and all its data.

    Parameters
    ----------
    name
        Cluster name.
    """
    from nomnom_cli.output import show_progress

    here = _kind(name)
    confirm(f"Delete the kind cluster {name}?", here.losses(), yes=yes, typed=name)
    await show_progress(here.destroy())


async def load(name: Annotated[str, Parameter(show_default=False)] = "nomnom", /) -> None:
    """Load the images into a kind cluster, replacing the ones it has.

    Parameters
    ----------
    name
        Cluster name.
    """
    from nomnom_cli.output import show_progress

    here = _kind(name)
    await show_progress(here.load(again=True))
    await here.close()


async def install(
    *, values: _Values = None, single: _Set = None, yes: Yes = False, target: Target | None = None
) -> None:
    """Install the pipeline on the cluster of --env, or upgrade it to these values.

    Without values, the previous values are kept.

    Parameters
    ----------
    values
        Values files: dev, prod, tpch, ecommerce or paths.
    single
        Single values: name=value. Repeatable.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(target)
    here.with_options(_options(values, single))
    confirm(f"Install on {here.location}?", here.plan("start"), yes=yes)
    await show_progress(here.start())
    await here.close()


async def upgrade(
    *, values: _Values = None, single: _Set = None, yes: Yes = False, target: Target | None = None
) -> None:
    """Upgrade the release to this chart and these values with a rolling update.

    Without values, the previous values are kept; so is an autoscaling policy changed by `nomnom scale`.

    Parameters
    ----------
    values
        Values files: dev, prod, tpch, ecommerce or paths.
    single
        Single values: name=value. Repeatable.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(target)
    if not await here.helm.history():
        raise UsageError(f"nothing is installed on {here.location}; install it with `nomnom install`")
    action, options = next(each for each in here.actions() if each.name == "upgrade"), _options(values, single)
    confirm(f"{action.title} on {here.location}?", action.plan(options), yes=yes)
    await show_progress(action.begin(options))
    await here.close()


async def uninstall(*, keep_data: Flag = False, yes: Yes = False, target: Target | None = None) -> None:
    """Remove the pipeline from the cluster of --env.

    Parameters
    ----------
    keep_data
        Keep the volume claims; a later installation with the same name uses their data.
    """
    from nomnom_cli.output import show_progress

    here = _cluster(target)
    losses = (f"the pipeline on {here.location}; its volume claims are kept",) if keep_data else here.losses()
    confirm(f"Uninstall {here.release.name}?", losses, yes=yes)
    await show_progress(here.installation.uninstall(data=not keep_data))
    await here.close()


async def list_environments(*, json: Json = False) -> None:
    """List the environments that --env accepts. No cluster is contacted."""
    from nomnom_cli.output import Column, as_json, show_table
    from nomnom_control.environments import catalog
    from nomnom_control.environments.cluster.configuration import read_configuration

    names = catalog.names()
    chosen = catalog.default_name()
    saved = read_configuration().environments
    found = [{"name": each, "used": each == chosen, "saved": each in saved, **_place(each)} for each in names]
    if json:
        as_json(found)
        return
    columns = (Column(""), Column("NAME"), Column("KIND"), Column("LOCATION", grows=True))
    rows = [("▸" if each["used"] else "", str(each["name"]), str(each["kind"]), str(each["where"])) for each in found]
    show_table(columns, rows, "no environments")


async def use(name: str, /) -> None:
    """Set the default environment.

    Parameters
    ----------
    name
        Environment name (`nomnom env ls`); `local` for this machine.
    """
    from nomnom_cli.output import print_result
    from nomnom_control.environments import catalog
    from nomnom_control.environments.cluster.configuration import use_environment

    here = open_environment(Target(env=name))
    use_environment("" if here.kind == catalog.LOCAL else name)
    print_result(f"the default environment is now {here.name}: {here.location}")


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
    """Save a release on a cluster under a name.

    Parameters
    ----------
    name
        Name to save it under.
    context
        Kubeconfig context.
    kind
        kind cluster, instead of a context.
    namespace
        Namespace of the release.
    release
        Release name.
    kubeconfig
        Kubeconfig file. Default: the user's.
    values
        Values files for its installation.
    """
    from nomnom_cli.output import print_result
    from nomnom_control.environments import catalog
    from nomnom_control.environments.cluster.configuration import SavedEnvironment, save_environment
    from nomnom_control.environments.cluster.location import configuration_path

    if (context is None) == (kind is None):
        raise UsageError("pass either --context or --kind")
    if name == catalog.LOCAL or ":" in name:
        raise UsageError(f"{name!r} is not a valid environment name: `local` and names with a colon are reserved")
    entry = SavedEnvironment(kind or "", context or "", namespace, release, kubeconfig or "", tuple(values or ()))
    save_environment(name, entry)
    print_result(f"{name} is saved in {configuration_path()}")


async def forget(name: str, /) -> None:
    """Remove a saved environment name; the environment itself is not changed.

    Parameters
    ----------
    name
        Environment name.
    """
    from nomnom_control.environments.cluster.configuration import read_configuration, save_environment

    if name not in read_configuration().environments:
        raise UsageError(f"no saved environment {name!r}; `nomnom env ls` lists them")
    save_environment(name, None)


async def build(*names: str) -> None:
    """Build the container images with docker.

    NOMNOM_IMAGE_REGISTRY and NOMNOM_IMAGE_TAG set their names; NOMNOM_BASE_PYTHON, NOMNOM_BASE_NODE and
    NOMNOM_BASE_NGINX set the base images.

    Parameters
    ----------
    names
        Image names. Default: all.
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


def _cluster(target: Target | None) -> KubeEnvironment:
    """The cluster environment of the options; raises UsageError for the local environment."""
    from nomnom_control.environments.cluster.environment import KubeEnvironment

    here = open_environment(target)
    if not isinstance(here, KubeEnvironment):
        raise UsageError(
            "this command needs a cluster: "
            "pass --env kind:CLUSTER, --env kube:CONTEXT or a saved name (`nomnom env ls`)"
        )
    return here


def _options(values: Sequence[str] | None, single: Sequence[str] | None) -> dict[str, str]:
    given = {"values": shlex.join(values or ()), "set": shlex.join(single or ())}
    return {name: text for name, text in given.items() if text}


def _place(name: str) -> dict[str, str]:
    here = open_environment(Target(env=name))
    return {"kind": here.kind, "where": here.location}
