"""Cluster environments that can be created: a kind cluster, or a release on a context of the kubeconfig."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nomnom_control.environments import Environment, EnvironmentTemplate, StartOption
from nomnom_control.environments.cluster.actions import value_options
from nomnom_control.environments.cluster.configuration import (
    SavedEnvironment,
    read_configuration,
    save_environment,
    split_args,
)
from nomnom_control.environments.cluster.kubeconfig import contexts
from nomnom_control.environments.cluster.names import DEFAULT_CLUSTER, open_saved
from nomnom_control.errors import ControlError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
"""A label as in RFC 1123, short enough for the names that are derived from it."""
_CLUSTER = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""Names that kind accepts."""


def templates() -> Sequence[EnvironmentTemplate]:
    """A kind cluster and, if the kubeconfig has contexts, a release on one of them."""
    configuration = read_configuration()

    def kind(values: Mapping[str, str]) -> Environment:
        cluster, namespace = values["cluster"], values["namespace"]
        return open_saved(
            _kind_name(values), SavedEnvironment(kind=cluster, namespace=namespace), configuration
        ).with_options(values)

    def keep_kind(values: Mapping[str, str]) -> None:
        # With the default namespace it is found by its context.
        if values["namespace"] != "nomnom":
            entry = SavedEnvironment(kind=values["cluster"], namespace=values["namespace"])
            save_environment(f"{values['cluster']}-{values['namespace']}", entry)

    def kube(values: Mapping[str, str]) -> Environment:
        return open_saved(values["name"], _entry(values), configuration).with_options(values)

    found = [
        EnvironmentTemplate(
            "kind",
            "A kind cluster on the local Docker, with the whole pipeline",
            (
                StartOption("cluster", "Cluster", DEFAULT_CLUSTER, "name of the kind cluster", _check_cluster),
                StartOption("namespace", "Namespace", "nomnom", "namespace of the pipeline", _check_name),
                *value_options(configuration, "dev"),
            ),
            kind,
            keep_kind,
        )
    ]
    names = contexts()
    if names:

        def check_context(text: str) -> str | None:
            return None if text in names else f"expected a context of the kubeconfig: {', '.join(names[:6])}"

        def check_saved(text: str) -> str | None:
            if problem := _check_name(text):
                return problem
            return "this name is already in use" if text == "local" or text in configuration.environments else None

        found.append(
            EnvironmentTemplate(
                "kube",
                "A release on an existing cluster",
                (
                    StartOption("name", "Name", "", "name of the environment in nomnom", check_saved),
                    StartOption("context", "Context", "", f"one of {', '.join(names[:4])}", check_context),
                    StartOption("namespace", "Namespace", "nomnom", "created if it does not exist", _check_name),
                    StartOption("release", "Release", "nomnom", "prefix of the names of its resources", _check_name),
                    *value_options(configuration),
                ),
                kube,
                lambda values: save_environment(values["name"], _entry(values)),
            )
        )
    return found


def _kind_name(values: Mapping[str, str]) -> str:
    namespace = values["namespace"]
    return f"kind:{values['cluster']}" + ("" if namespace == "nomnom" else f"/{namespace}")


def _entry(values: Mapping[str, str]) -> SavedEnvironment:
    if not values.get("context"):
        raise ControlError("no context given; choose a context of the kubeconfig")
    return SavedEnvironment(
        context=values["context"],
        namespace=values["namespace"],
        release=values["release"],
        values=tuple(split_args(values.get("values", ""))),
    )


def _check_name(text: str) -> str | None:
    return None if _NAME.fullmatch(text) else "expected lowercase letters, digits and -, at most 40 characters"


def _check_cluster(text: str) -> str | None:
    return None if _CLUSTER.fullmatch(text) else "expected lowercase letters, digits, . and -"
