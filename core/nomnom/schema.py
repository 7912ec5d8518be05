"""Schema files: the record types of a deployment, as data.

A file declares entities (tag, table, fields, key, parent). The parser, the tables, the upserts and the entity views are
generated from it; nothing else in nomnom depends on the entities of a deployment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import yaml

from nomnom.envelope import UNKNOWN_ENTITY
from nomnom.errors import NomnomError
from nomnom.fields import FieldType, Native, field_type

RESERVED_COLUMNS = frozenset({"received_at", "message_id", "stream_position"})
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TAG = re.compile(r"[A-Z][A-Z0-9_]{0,15}")
_TAG_SCAN_LENGTH = 64
_MAX_DEPTH = 16
Places: TypeAlias = "Mapping[str, int]"


class SchemaError(NomnomError):
    """An invalid schema file; the text is ``file:line: place: problem``."""

    def __init__(self, source: str, line: int | None, place: str, problem: str) -> None:
        self.source, self.line, self.place, self.problem = source, line, place, problem
        where = f"{source}:{line}" if line else source
        super().__init__(f"{where}: {place}: {problem}" if place else f"{where}: {problem}")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an entity. ``minimum``, ``maximum`` and ``values`` are constraints in addition to its type."""

    name: str
    type: FieldType
    nullable: bool = False
    minimum: Native = None
    maximum: Native = None
    values: frozenset[str] | None = None
    title: str = ""

    @property
    def limited(self) -> bool:
        """Whether values have constraints in addition to the type."""
        return self.minimum is not None or self.maximum is not None or self.values is not None

    @property
    def expected(self) -> str:
        """A description of valid values, for error messages."""
        parts = [self.type.expected]
        if self.minimum is not None:
            parts.append(f"at least {self.minimum}")
        if self.maximum is not None:
            parts.append(f"at most {self.maximum}")
        if self.values is not None:
            parts.append("one of " + ", ".join(sorted(self.values)))
        return ", ".join(parts) + (", or empty" if self.nullable else "")


@dataclass(frozen=True, slots=True)
class Parent:
    """The parent entity, and the fields that a child inherits from it (child's field: parent's field)."""

    entity: str
    fields: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Entity:
    """A record type. ``layouts`` are the orders of fields on the wire, distinguished by their number of fields."""

    name: str
    tag: str
    table: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    parent: Parent | None = None
    title: str = ""

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each field among the columns."""
        return {each.name: position for position, each in enumerate(self.fields)}

    @cached_property
    def key_indexes(self) -> tuple[int, ...]:
        """Positions of the key fields among the columns."""
        return tuple(self.index[name] for name in self.key)

    @cached_property
    def optional_on_wire(self) -> frozenset[str]:
        """Fields that some layout omits; null unless inherited from a parent."""
        return frozenset(name for layout in self.layouts for name in self.index if name not in layout)

    @property
    def keyless_allowed(self) -> bool:
        """Whether a record may have no key; it is then stored under its message ID."""
        return any(name in self.optional_on_wire for name in self.key)

    def column_nullable(self, each: Field) -> bool:
        """Whether the column is nullable."""
        return each.nullable or each.name in self.optional_on_wire

    def describe(self) -> dict[str, Any]:
        """The entity as a JSON-compatible mapping, for API clients."""
        return {
            "name": self.name,
            "tag": self.tag,
            "table": self.table,
            "title": self.title,
            "key": list(self.key),
            "parent": self.parent.entity if self.parent else None,
            "layouts": [list(layout) for layout in self.layouts],
            "fields": [
                {
                    "name": each.name,
                    "title": each.title,
                    "type": each.type.name,
                    "column_type": each.type.column,
                    "numeric": each.type.numeric,
                    "nullable": self.column_nullable(each),
                    "expected": each.expected,
                }
                for each in self.fields
            ],
        }


@dataclass(frozen=True, eq=False)
class Schema:
    """The entities of a deployment, in the order in which rows are written."""

    name: str
    entities: tuple[Entity, ...]
    title: str = ""
    source: str = ""
    _by_tag: dict[str, Entity] = field(init=False, repr=False)
    _by_name: dict[str, Entity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_tag", {each.tag: each for each in self.entities})
        object.__setattr__(self, "_by_name", {each.name: each for each in self.entities})

    def __iter__(self) -> Iterator[Entity]:
        return iter(self.entities)

    def by_tag(self, tag: str) -> Entity | None:
        """The entity with this tag, or None."""
        return self._by_tag.get(tag)

    def entity(self, name_or_tag: str) -> Entity:
        """The entity with this name or tag; raises SchemaError with the known ones."""
        if found := self._by_name.get(name_or_tag.lower()) or self._by_tag.get(name_or_tag.upper()):
            return found
        known = "expected one of " + ", ".join(f"{each.name} ({each.tag})" for each in self.entities)
        raise SchemaError(self.source or self.name, None, "", f"unknown entity {name_or_tag!r}; {known}")

    def entity_name(self, message: str) -> str:
        """The entity token for the subject of a message, from the tag of its first line."""
        found = self._by_tag.get(message[:_TAG_SCAN_LENGTH].lstrip("\n\r").partition("|")[0])
        return found.name if found else UNKNOWN_ENTITY

    def describe(self) -> dict[str, Any]:
        """The schema as a JSON-compatible mapping, for API clients."""
        return {"name": self.name, "title": self.title, "entities": [e.describe() for e in self.entities]}


class _FieldFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    type: str
    nullable: bool = False
    min: int | float | str | None = None
    max: int | float | str | None = None
    values: list[str] | None = None
    title: str = ""


class _ParentFile(msgspec.Struct, forbid_unknown_fields=True):
    entity: str
    fields: dict[str, str]


class _EntityFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    tag: str
    fields: list[_FieldFile]
    key: list[str]
    table: str = ""
    layouts: list[list[str]] | None = None
    parent: _ParentFile | None = None
    title: str = ""


class _SchemaFile(msgspec.Struct, forbid_unknown_fields=True):
    schema: str
    entities: list[_EntityFile]
    title: str = ""


def built_in_schemas() -> dict[str, Path]:
    """The schema files included with nomnom, by name."""
    here = Path(__file__).resolve().parent
    # Next to this module in an installed distribution, at the top of a work tree.
    folder = here / "schemas" if (here / "schemas").is_dir() else here.parents[1] / "schemas"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_schema(name_or_path: str | os.PathLike[str]) -> Schema:
    """Load a schema by path or by the name of a built-in one; raises SchemaError."""
    built_in = built_in_schemas()
    path = built_in.get(os.fspath(name_or_path)) or Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"pass a path, or one of {', '.join(built_in)}"
        raise SchemaError(os.fspath(name_or_path), None, "", f"cannot read the schema: {error}; {hint}") from error
    return parse_schema(text, str(path))


def parse_schema(text: str, source: str = "schema") -> Schema:
    """Parse the text of a schema file; raises SchemaError with the line and the place."""
    try:
        _check_events(text, source)
        root = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))
        if root is not None:
            _check_keys(root, source)
        data: Any = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SchemaError(source, line, "", f"invalid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SchemaError(source, None, "", f"invalid YAML: {error}") from error
    places = dict(_places(root)) if root else {}
    try:
        file = msgspec.convert(data, _SchemaFile)
    except msgspec.ValidationError as error:
        place, problem = _locate(data, error)
        raise SchemaError(source, _line(places, place), place, problem) from error
    return _Builder(source, places).schema(file)


def _check_events(text: str, source: str) -> None:
    """Reject aliases, which can expand to any size, and deep nesting, which no schema has."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise SchemaError(source, line, "", "YAML aliases are not supported; repeat the content")
        if depth > _MAX_DEPTH:
            raise SchemaError(source, line, "", f"nested more than {_MAX_DEPTH} levels deep")


def _check_keys(node: yaml.Node, source: str) -> None:
    """Reject duplicate keys: the YAML parser silently keeps the last one."""
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise SchemaError(source, key.start_mark.line + 1, "", "expected a string as key")
            if key.value in seen:
                raise SchemaError(source, key.start_mark.line + 1, str(key.value), "duplicate key")
            seen.add(str(key.value))
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for each in children:
        _check_keys(each, source)


def _locate(data: Any, error: msgspec.ValidationError) -> tuple[str, str]:
    """The place and the text of a structural error; msgspec does not report positions in lists."""
    entities = data.get("entities") if isinstance(data, dict) else None
    for at, entity in enumerate(entities if isinstance(entities, list) else []):
        fields = entity.get("fields") if isinstance(entity, dict) else None
        for position, each in enumerate(fields if isinstance(fields, list) else []):
            if found := _error_in(each, _FieldFile):
                return f"entities[{at}].fields[{position}]{found[0]}", found[1]
        if found := _error_in(entity, _EntityFile):
            return f"entities[{at}]{found[0]}", found[1]
    place, problem = _split_error(error)
    return place.lstrip("."), problem


def _error_in(data: Any, kind: type[msgspec.Struct]) -> tuple[str, str] | None:
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        return _split_error(error)
    return None


def _split_error(error: msgspec.ValidationError) -> tuple[str, str]:
    problem, _, place = str(error).partition(" - at `$")
    return place.rstrip("`"), problem


def _places(node: yaml.Node, place: str = "") -> Iterator[tuple[str, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, f"{place}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _places(item, f"{place}[{position}]")


def _line(places: Places, place: str) -> int | None:
    while place and place not in places:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return places.get(place)


class _Builder:
    """Builds a Schema from the parsed file and validates what its types cannot."""

    def __init__(self, source: str, places: Places) -> None:
        self.source, self.places = source, places

    def fail(self, place: str, problem: str) -> SchemaError:
        return SchemaError(self.source, _line(self.places, place), place, problem)

    def schema(self, file: _SchemaFile) -> Schema:
        if not _IDENTIFIER.fullmatch(file.schema):
            raise self.fail("schema", f"expected a lowercase name, found {file.schema!r}")
        if not file.entities:
            raise self.fail("entities", "expected at least one entity")
        entities = [self.entity(each, f"entities[{at}]") for at, each in enumerate(file.entities)]
        for attribute in ("name", "tag", "table"):
            seen: set[str] = set()
            for at, each in enumerate(entities):
                value = getattr(each, attribute)
                if value in seen:
                    raise self.fail(f"entities[{at}].{attribute}", f"{value!r} is already used by an earlier entity")
                seen.add(value)
        by_name = {each.name: each for each in entities}
        for at, each in enumerate(entities):
            self.check_parent(each, by_name, f"entities[{at}].parent")
        return Schema(file.schema, tuple(entities), title=file.title or file.schema, source=self.source)

    def entity(self, file: _EntityFile, place: str) -> Entity:
        if not _IDENTIFIER.fullmatch(file.name) or file.name == UNKNOWN_ENTITY:
            raise self.fail(
                f"{place}.name", f"expected a lowercase name other than {UNKNOWN_ENTITY!r}, found {file.name!r}"
            )
        if not _TAG.fullmatch(file.tag):
            raise self.fail(f"{place}.tag", f"expected uppercase letters and digits, found {file.tag!r}")
        table = file.table or file.name
        if not _IDENTIFIER.fullmatch(table) or table.startswith(("nomnom_", "pg_")) or table == "message_status":
            raise self.fail(f"{place}.table", f"expected a lowercase name not reserved by nomnom, found {table!r}")
        if not file.fields:
            raise self.fail(f"{place}.fields", "expected at least one field")
        fields = tuple(self.field(each, f"{place}.fields[{at}]") for at, each in enumerate(file.fields))
        names = [each.name for each in fields]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise self.fail(f"{place}.fields[{at}].name", f"duplicate field {name!r}")
        if not file.key or len(set(file.key)) != len(file.key):
            raise self.fail(f"{place}.key", "expected one or more distinct field names")
        for at, name in enumerate(file.key):
            if name not in names:
                raise self.fail(f"{place}.key[{at}]", f"unknown field {name!r}; expected one of {', '.join(names)}")
            if fields[names.index(name)].nullable:
                raise self.fail(f"{place}.key[{at}]", f"{name!r} is nullable; key fields must not be")
        parent = Parent(file.parent.entity, file.parent.fields) if file.parent else None
        layouts = self.layouts(file, names, parent, f"{place}.layouts")
        title = file.title or file.name.replace("_", " ").capitalize()
        return Entity(file.name, file.tag, table, fields, tuple(file.key), layouts, parent, title)

    def layouts(
        self, file: _EntityFile, names: list[str], parent: Parent | None, place: str
    ) -> tuple[tuple[str, ...], ...]:
        if file.layouts is None:
            return (tuple(names),)
        given = set(parent.fields) if parent else set[str]()
        for at, layout in enumerate(file.layouts):
            for position, name in enumerate(layout):
                if name not in names or name in layout[:position]:
                    problem = f"unknown or duplicate field {name!r}"
                    raise self.fail(f"{place}[{at}][{position}]", problem)
            if missing := [name for name in names if name not in layout and name not in given]:
                problem = f"omits {', '.join(missing)}; only fields inherited from the parent may be omitted"
                raise self.fail(f"{place}[{at}]", problem)
        lengths = [len(layout) for layout in file.layouts]
        if not lengths or len(set(lengths)) != len(lengths):
            raise self.fail(place, "layouts must differ in their number of fields, which distinguishes them")
        return tuple(tuple(layout) for layout in file.layouts)

    def field(self, file: _FieldFile, place: str) -> Field:
        if not _IDENTIFIER.fullmatch(file.name) or file.name in RESERVED_COLUMNS:
            reserved = " or ".join(sorted(RESERVED_COLUMNS))
            problem = f"expected a lowercase name other than {reserved}, found {file.name!r}"
            raise self.fail(f"{place}.name", problem)
        try:
            kind = field_type(file.type)
        except ValueError as error:
            raise self.fail(f"{place}.type", f"expected {error}, found {file.type!r}") from error
        if file.values is not None and not kind.textual:
            raise self.fail(f"{place}.values", f"values require a text type, found {kind.name}")
        low, high = self.limit(kind, file.min, f"{place}.min"), self.limit(kind, file.max, f"{place}.max")
        values = frozenset(file.values) if file.values is not None else None
        title = file.title or file.name.replace("_", " ")
        return Field(file.name, kind, file.nullable, low, high, values, title)

    def limit(self, kind: FieldType, limit: int | float | str | None, place: str) -> Native:
        if limit is None:
            return None
        text = str(limit)
        if kind.textual or kind.name == "boolean":
            raise self.fail(place, f"{kind.name} does not support min and max")
        if not re.fullmatch(kind.pattern, text):
            raise self.fail(place, f"expected {kind.expected}, found {text!r}")
        try:
            value = kind.convert(text) if kind.convert else text
        except (ValueError, OverflowError) as error:
            raise self.fail(place, f"expected {kind.expected}, found {text!r}") from error
        return kind.native(value)

    def check_parent(self, entity: Entity, by_name: Mapping[str, Entity], place: str) -> None:
        if entity.parent is None:
            return
        parent = by_name.get(entity.parent.entity)
        if parent is None or parent is entity:
            others = ", ".join(name for name in by_name if name != entity.name)
            raise self.fail(f"{place}.entity", f"unknown entity {entity.parent.entity!r}; expected one of {others}")
        if parent.parent is not None:
            raise self.fail(
                f"{place}.entity", f"{parent.name!r} has a parent itself; only one level of children is supported"
            )
        for mine, theirs in entity.parent.fields.items():
            at = f"{place}.fields.{mine}"
            if mine not in entity.index:
                raise self.fail(at, f"unknown field {mine!r} of {entity.name!r}")
            if theirs not in parent.index:
                raise self.fail(at, f"unknown field {theirs!r} of {parent.name!r}")
            if entity.fields[entity.index[mine]].type != parent.fields[parent.index[theirs]].type:
                raise self.fail(at, f"{mine} and {parent.name}.{theirs} have different types")
