"""The chart's values: each file is valid and documented; misspelt and ill-typed values are rejected."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nomnom.scaling import CLUSTER_LIMIT, ScalingPolicy
from nomnom.schema import load_schema, parse_schema
from nomnom.settings import COMPONENTS, Settings

CHART = Path(__file__).parents[2] / "helm" / "nomnom"
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
OTHERS = sorted(path.name for path in CHART.glob("values-*.yaml"))


def objects(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the objects that allow no additional properties."""
    if not schema.get("additionalProperties", True):
        yield path
    for name, inner in values.items():
        known = schema.get("properties", {}).get(name, {})
        if isinstance(inner, dict) and "properties" in known:
            yield from objects(inner, known, f"{path}.{name}".lstrip("."))


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in values.items():
        place = f"{path}.{name}".lstrip(".")
        if isinstance(inner, dict) and inner:
            yield from leaves(inner, place)
        else:
            yield place


def at(values: dict[str, Any], path: str) -> Any:
    for name in path.split(".") if path else ():
        values = values[name]
    return values


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return base | {
        name: merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in over.items()
    }


@pytest.mark.parametrize("name", OTHERS)
def test_values_file_matches_the_schema(name: str) -> None:
    jsonschema.validate(merged(DEFAULTS, yaml.safe_load((CHART / name).read_text())), SCHEMA)


@pytest.mark.parametrize("place", sorted(objects(DEFAULTS, SCHEMA)))
def test_misspelt_value_is_rejected(place: str) -> None:
    values = copy.deepcopy(DEFAULTS)
    at(values, place)["mispelt"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'mispelt' was unexpected"):
        jsonschema.validate(values, SCHEMA)


def test_ill_typed_value_is_rejected() -> None:
    wrong: dict[type, Any] = {bool: "yes", int: "many", float: "much", str: 7, list: {}, type(None): "none"}
    for place in leaves(DEFAULTS):
        parent, _, name = place.rpartition(".")
        if re.search(r"(resources\.(requests|limits)|parameters|hard|labels)\.", place):
            continue
        values = copy.deepcopy(DEFAULTS)
        value = at(values, place)
        at(values, parent)[name] = wrong.get(type(value), "a text")
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values, SCHEMA)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("nats.replicas", 2),
        ("keda.lagThreshold", 0),
        ("database.sslMode", "maybe"),
        ("nats.storage.size", "10 GB"),
        ("nats.lameDuckSeconds", 5),
        ("ingestion.worker.batchSize", 10_001),
        ("ingestion.api.spread", "Never"),
        ("monitoring.prometheusRule.ageShare", 2),
        ("logLevel", "loud"),
    ],
)
def test_value_out_of_range_is_rejected(place: str, value: object) -> None:
    values = copy.deepcopy(DEFAULTS)
    parent, _, name = place.rpartition(".")
    at(values, parent)[name] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_readme_has_the_text_of_its_template() -> None:
    readme = (CHART / "README.md").read_text()
    for part in re.split(r"{{.*?}}", (CHART / "README.md.gotmpl").read_text()):
        assert part.strip() in readme, "run helm-docs"


def test_readme_documents_every_value_with_its_default() -> None:
    readme = (CHART / "README.md").read_text()
    rows = dict(re.findall(r"^\| ([\w.]+) \| \w+ \| `(.*?)` \|", readme, re.MULTILINE))
    documented = set(rows)
    for place in leaves(DEFAULTS):
        parts = place.split(".")
        prefixes = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        assert prefixes & documented, f"{place}: run helm-docs"
        if place in rows:
            assert json.loads(rows[place].replace("nil", "null")) == at(DEFAULTS, place), f"{place}: run helm-docs"
    text = (CHART / "values.yaml").read_text()
    assert len(re.findall(r"^ *# -- ", text, re.MULTILINE)) == len(documented)


@pytest.mark.parametrize("name", ["tpch", "ecommerce"])
def test_chart_includes_the_built_in_schemas(name: str) -> None:
    text = (CHART / "files" / "schemas" / f"{name}.yaml").read_text()
    assert parse_schema(text).name == load_schema(name).name


TEMPLATES = {
    "api": "ingestion/api.yaml",
    "worker": "ingestion/worker.yaml",
    "dashboard": "dashboard/backend.yaml",
    "housekeeper": "housekeeper.yaml",
    "setup": "setup.yaml",
}
PARTS = {"NATS_PASSWORD", "NOMNOM_SCHEMA_CHECKSUM"}
"""Variables that other variables are made of, and one that makes a change of the schema run the setup."""
OTHER_DEFAULTS = {
    "NATS_REPLICAS": "the chart runs three servers",
    "NOMNOM_SETUP_WAIT": "volumes and images come first",
    "NOMNOM_API_DRAIN": "a Service sends requests for some seconds after a pod was stopped",
    "LOG_FORMAT": "a cluster's logs are read by programs",
    "NOMNOM_SCHEMA": "the schema is mounted as a file",
    "NATS_INBOX_PREFIX": "each NATS user has its own",
}


HELPERS = (CHART / "templates" / "_helpers.tpl").read_text()
DATABASE_ROLES = re.findall(r"\w+", re.findall(r'define "nomnom.databaseRoles" -}}(.*?){{', HELPERS, re.DOTALL)[0])


def variables_of(text: str) -> dict[str, str]:
    """The variables that a template sets, with the expression of each value."""
    found = dict(re.findall(r"^ *- name: ([A-Z][A-Z0-9_]+)\n *(?:value|valueFrom): *(.*)$", text, re.MULTILINE))
    for words, form in re.findall(r"range list (.*?) }}(?s:.*?)(DATABASE_%s_URL|NOMNOM_DASHBOARD_{{ upper . }})", text):
        found |= {re.sub("%s|{{.*}}", each.upper(), form): "" for each in re.findall(r"\w+", words)}
    if 'range include "nomnom.databaseRoles"' in text:
        found |= {f"DATABASE_{each.upper()}_URL": "" for each in DATABASE_ROLES}
    return found


@pytest.mark.parametrize("component", TEMPLATES)
def test_the_chart_sets_declared_variables_with_the_declared_defaults(component: str) -> None:
    text = (CHART / "templates" / TEMPLATES[component]).read_text()
    found = {**variables_of(HELPERS), **variables_of(text)}
    declared = COMPONENTS[component].declared()
    assert found.keys() - PARTS <= declared.keys()
    assert ("DATABASE_OPERATOR_URL" in found) == (component == "setup")
    assert ("NOMNOM_DASHBOARD_TOKENS" in found) == (component == "dashboard")
    assert {"NATS_STREAM", "NATS_CONSUMER", "NATS_URL", "NOMNOM_SCHEMA"} <= found.keys()
    aliases = dict(re.findall(r"\{\{-? \$(\w+) := \.Values\.([\w.]+) -?\}\}", text))
    compared = 0
    for name, expression in found.items():
        value = re.fullmatch(r"\{\{ (?:\$?\.Values|\$(\w+))\.([\w.]+)(?: \| int64)?(?: \| quote)? \}\}", expression)
        if value is None or name in OTHER_DEFAULTS:
            continue
        place = f"{aliases[value[1]]}.{value[2]}" if value[1] else value[2]
        assert declared[name].read(str(at(DEFAULTS, place))) == declared[name].default, f"{name}: {place}"
        compared += 1
        schema = SCHEMA
        for each in place.split("."):
            schema = schema["properties"][each]
        for bound in ("minimum", "maximum"):
            if bound in schema:
                declared[name].read(str(schema[bound]))
    assert compared >= 4


def test_the_chart_may_differ_only_in_settings_that_are_declared() -> None:
    assert OTHER_DEFAULTS.keys() <= {name for each in COMPONENTS.values() for name in each.declared()}
    assert all(COMPONENTS["setup"].declared()[name].shared for name in ("NATS_STREAM", "NATS_CONSUMER"))


def test_the_names_of_the_streams_are_values_everywhere() -> None:
    streams = Settings().streams
    for path in sorted((CHART / "templates").rglob("*")):
        if path.is_file():
            text = path.read_text()
            assert streams.stream not in text, path
            assert not re.search(rf"\b(consumer: |\.){streams.consumer}\b", text), path


def test_the_chart_scales_by_the_policy_that_nomnom_knows() -> None:
    keda = DEFAULTS["keda"]
    assert ScalingPolicy() == ScalingPolicy(
        minimum=keda["minReplicas"],
        maximum=keda["maxReplicas"],
        threshold=keda["lagThreshold"],
        cooldown=keda["cooldownPeriod"],
        polling=keda["pollingInterval"],
    )
    known = SCHEMA["properties"]["keda"]["properties"]
    assert known["maxReplicas"]["maximum"] == known["minReplicas"]["maximum"] == CLUSTER_LIMIT
