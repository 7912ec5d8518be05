"""Cluster environments that can be made: a kind cluster of this machine, a release on a context of the kubeconfig."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nomnom_control.environments import Environment, EnvironmentTemplate, StartOption
from nomnom_control.environments.cluster.actions import value_options
from nomnom_control.environments.cluster.configuration import (
    SavedEnvironment,
    read_configuration,
    save_environment,
    words,
)
from nomnom_control.environments.cluster.kubeconfig import contexts
from nomnom_control.environments.cluster.names import DEFAULT_CLUSTER, open_saved
from nomnom_control.errors import ControlError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
"""RFC 1123's label, short enough for the names that are made of it."""
_CLUSTER = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""What kind takes."""


def templates() -> Sequence[EnvironmentTemplate]:
    """A kind cluster; and, where the kubeconfig names a context, a release on one."""
    configuration = read_configuration()

    def kind(values: Mapping[str, str]) -> Environment:
        cluster, namespace = values["cluster"], values["namespace"]
        return open_saved(
            _kind_name(values), SavedEnvironment(kind=cluster, namespace=namespace), configuration
        ).with_options(values)

    def keep_kind(values: Mapping[str, str]) -> None:
        # One with the usual namespace is found by its context.
        if values["namespace"] != "nomnom":
            entry = SavedEnvironment(kind=values["cluster"], namespace=values["namespace"])
            save_environment(f"{values['cluster']}-{values['namespace']}", entry)

    def kube(values: Mapping[str, str]) -> Environment:
        return open_saved(values["name"], _entry(values), configuration).with_options(values)

    found = [
        EnvironmentTemplate(
            "kind",
            "A kind cluster on this machine's docker, with everything in it",
            (
                StartOption("cluster", "Cluster", DEFAULT_CLUSTER, "the kind cluster's name", _check_cluster),
                StartOption("namespace", "Namespace", "nomnom", "of the pipeline", _check_name),
                *value_options(configuration, "dev"),
            ),
            kind,
            keep_kind,
        )
    ]
    names = contexts()
    if names:

        def check_context(text: str) -> str | None:
            return None if text in names else f"the kubeconfig has {', '.join(names[:6])}"

        def check_saved(text: str) -> str | None:
            if problem := _check_name(text):
                return problem
            return "an environment has that name" if text == "local" or text in configuration.environments else None

        found.append(
            EnvironmentTemplate(
                "kube",
                "A release on a cluster of the kubeconfig",
                (
                    StartOption("name", "Name", "", "what you call it here", check_saved),
                    StartOption("context", "Context", "", f"one of {', '.join(names[:4])}", check_context),
                    StartOption("namespace", "Namespace", "nomnom", "it is made where it is not there", _check_name),
                    StartOption("release", "Release", "nomnom", "its resources' names begin with it", _check_name),
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
        raise ControlError("choose a context of the kubeconfig")
    return SavedEnvironment(
        context=values["context"],
        namespace=values["namespace"],
        release=values["release"],
        values=tuple(words(values.get("values", ""))),
    )


def _check_name(text: str) -> str | None:
    return None if _NAME.fullmatch(text) else "expected small letters, digits and -, at most 40"


def _check_cluster(text: str) -> str | None:
    return None if _CLUSTER.fullmatch(text) else "expected small letters, digits, . and -"
