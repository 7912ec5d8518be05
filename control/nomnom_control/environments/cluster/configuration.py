"""What is needed for an installation: programs, chart, images, node image, add-ons.

``NOMNOM_*`` variables take precedence over ``clusters.yaml`` in the user's configuration folder, and the file over
these defaults, which are public and pinned.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

import nomnom
from nomnom.files import make_folder, replace_file
from nomnom_control.environments.cluster.location import configuration_path
from nomnom_control.errors import ControlError

IMAGES = (
    "nomnom-ingestion-api",
    "nomnom-ingestion-worker",
    "nomnom-dashboard-backend",
    "nomnom-dashboard-frontend",
    "nomnom-housekeeper",
)
"""The pipeline's own images."""
_PACKAGE = Path(__file__).parents[2]


class SavedEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An environment saved under a name: a release on a kind cluster, or on a context of a kubeconfig."""

    kind: str = ""
    context: str = ""
    namespace: str = "nomnom"
    release: str = "nomnom"
    kubeconfig: str = ""
    values: tuple[str, ...] = ()
    """The values files that it was installed with."""


class ClusterConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The configuration. Paths may be relative to the current folder; an empty one means the bundled file."""

    node_image: str = "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
    kind_config: str = ""
    addons: str = ""
    """A file like kind/addons.yaml, or a folder with one manifest NAME.yaml per add-on."""
    chart: str = ""
    sources: str = ""
    """The source tree that images are built from."""
    image_registry: str = ""
    """Registry prefix for the images of the pipeline, of NATS and of PostgreSQL."""
    image_tag: str = nomnom.__version__
    values: str = ""
    """Chart values for every installation, name=value separated by spaces, for example image tags of a mirror."""
    helm: str = "helm"
    kind: str = "kind"
    docker: str = "docker"
    current: str = ""
    """The default environment."""
    environments: dict[str, SavedEnvironment] = {}

    @property
    def chart_folder(self) -> Path:
        """The chart. Raises ControlError if it is not found."""
        return _existing(self.chart, "helm/nomnom", "chart", "chart")

    @property
    def kind_file(self) -> Path:
        """kind's cluster configuration. Raises ControlError if it is not found."""
        return _existing(self.kind_config, "kind/cluster.yaml", "kind_config", "kind/cluster.yaml")

    @property
    def addons_path(self) -> Path:
        """The definitions of the add-ons. Raises ControlError if they are not found."""
        return _existing(self.addons, "kind/addons.yaml", "addons", "kind/addons.yaml")

    @property
    def source_folder(self) -> Path:
        """The source tree. Raises ControlError if it is not found."""
        return _existing(self.sources, "images/service.Dockerfile", "sources", "").parents[0 if self.sources else 1]

    def image(self, name: str) -> str:
        """An image of the pipeline with registry and tag."""
        prefix = f"{self.image_registry.rstrip('/')}/" if self.image_registry else ""
        return f"{prefix}{name}:{self.image_tag}"

    def values_file(self, given: str) -> Path:
        """A values file by path, or one of the chart's by short name (dev: values-dev.yaml)."""
        bundled = self.chart_folder / f"values-{given}.yaml"
        path = bundled if bundled.is_file() else Path(given).expanduser()
        if not path.is_file():
            names = ", ".join(sorted(each.stem.removeprefix("values-") for each in self.chart_folder.glob("values-*")))
            raise ControlError(f"values file {given} not found; give a path, or one of {names}")
        return path


def split_args(text: str) -> list[str]:
    """Split text like a shell, but keep backslashes: they are escapes in helm's value names.

    Raises ControlError for an unclosed quote.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError:
        raise ControlError(f"unclosed quote: {text}") from None


def read_configuration(variables: Mapping[str, str] | None = None) -> ClusterConfiguration:
    """The file with the variables over it. Raises ControlError if the file is faulty."""
    found = os.environ if variables is None else variables
    stored = _stored(configuration_path())
    names = [each for each in ClusterConfiguration.__struct_fields__ if each not in ("environments", "current")]
    given = {name: value for name in names if (value := found.get(f"NOMNOM_{name.upper()}"))}
    return msgspec.structs.replace(stored, **given)


def _stored(path: Path) -> ClusterConfiguration:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ClusterConfiguration()
    except (OSError, UnicodeDecodeError) as error:
        raise ControlError(f"cannot read {path}: {error}") from error
    try:
        return msgspec.convert(yaml.safe_load(text) or {}, ClusterConfiguration)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ControlError(f"{path} is not a valid configuration: {error}") from error


def save_environment(name: str, environment: SavedEnvironment | None) -> None:
    """Save an environment under a name; None removes it."""
    stored = _stored(configuration_path())
    kept = {key: value for key, value in stored.environments.items() if key != name}
    if environment is not None:
        kept[name] = environment
    current = "" if environment is None and stored.current == name else stored.current
    _write(msgspec.structs.replace(stored, environments=kept, current=current))


def use_environment(name: str) -> None:
    """Set the default environment; an empty name means the local one."""
    _write(msgspec.structs.replace(_stored(configuration_path()), current=name))


def _write(configuration: ClusterConfiguration) -> None:
    path = configuration_path()
    data: Any = msgspec.to_builtins(configuration)
    make_folder(path.parent)
    replace_file(path, yaml.safe_dump(data, sort_keys=False).encode(), mode=0o644)


def _existing(given: str, in_tree: str, setting: str, packaged: str) -> Path:
    if given:
        path = Path(given).expanduser()
        if path.exists():
            return path
        raise ControlError(f"{setting}: {path} does not exist (NOMNOM_{setting.upper()})")
    for each in (_tree() / in_tree, _PACKAGE / "files" / packaged):
        if each.exists() and (packaged or each != _PACKAGE / "files"):
            return each
    raise ControlError(f"{in_tree} not found; set NOMNOM_{setting.upper()} to its path")


@cache
def _tree() -> Path:
    """The source tree that contains this package, if any."""
    return next((each for each in _PACKAGE.parents if (each / "helm" / "nomnom" / "Chart.yaml").is_file()), _PACKAGE)
