"""How a setting is declared: one annotated field of a structure. Everything else about settings derives from that.

The field's name in upper case is the environment variable. Its annotation holds type and limits, and :func:`about` adds
meaning, unit, and whether it is a secret. Validation, ``nomnom config`` and docs/settings.md read nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Self, get_type_hints

import msgspec
from msgspec import inspect

from nomnom.errors import NomnomError

HIDDEN = "***"
"""Shown instead of a secret."""


class SettingsError(NomnomError):
    """A setting that cannot be used. The message names the variable and never repeats its value: it may be a secret."""


class UnknownSettingError(SettingsError):
    """A name that the component does not read."""


Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_ENDLESS = 1_000_000_000
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_ENDLESS)]
"""More than thirty years is taken for a mistake, and so is infinity."""


def about(
    meaning: str,
    unit: str = "",
    *,
    secret: bool = False,
    shared: bool = False,
    choices: Sequence[str] = (),
    expects: str = "",
    check: Callable[[str], object] | None = None,
    show: Callable[[str], str] | None = None,
) -> msgspec.Meta:
    """What a field's annotation says beside its type and limits.

    ``shared``: all components of a pipeline need the same value. ``choices`` are the allowed texts, in upper or lower
    case. ``expects`` describes an allowed text if the type does not. ``check`` raises ValueError, which must not repeat
    the value. ``show`` returns a text without the secret parts of the value.
    """
    if choices:
        expects = f"one of {', '.join(choices)}"
        check = partial(_choose, choices)
    shown: Callable[[str], str] = show or ((lambda text: HIDDEN if text else "") if secret else str)
    found = {"unit": unit, "secret": secret, "shared": shared, "expects": expects, "check": check, "show": shown}
    return msgspec.Meta(description=meaning, extra=found)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting."""

    name: str
    """The environment variable."""
    attribute: str
    default: Any
    meaning: str
    unit: str
    secret: bool
    shared: bool
    expected: str
    """Type and limits, as in "a whole number, 1 to 10,000"."""
    show: Callable[[str], str] = field(repr=False)
    """A value as people may see it: without its secret parts."""
    _type: Any = field(repr=False)
    _check: Callable[[str], object] | None = field(repr=False)

    @property
    def default_text(self) -> str:
        """The default as an operator would write it; empty if there is none."""
        return _text(self.default)

    def read(self, text: str) -> Any:
        """The value of a variable's text. Raises SettingsError."""
        try:
            if self._check is not None:
                self._check(text)
            return msgspec.convert(text, self._type, strict=False)
        except msgspec.ValidationError:
            raise SettingsError(f"{self.name}: expected {self.expected}") from None
        except ValueError as error:
            raise SettingsError(f"{self.name}: {error}") from None

    def holds_secret(self, text: str) -> bool:
        """Whether a value has parts that must not be shown."""
        return self.show(text) != text

    def differs(self, text: str) -> bool:
        """Whether a variable's text means something else than the default."""
        try:
            return bool(self.read(text) != self.default)
        except SettingsError:
            return True


class Declaration(msgspec.Struct, frozen=True, kw_only=True, rename=str.upper):
    """The settings that one program reads from its environment."""

    TOGETHER: ClassVar[frozenset[str]] = frozenset()
    """The variables that :meth:`check` compares with each other."""

    @classmethod
    def declared(cls) -> Mapping[str, Setting]:
        """The settings by variable name, in the order of their declaration."""
        return _declared(cls)

    @classmethod
    def find(cls, name: str) -> Setting:
        """The setting of that name. Raises UnknownSettingError, which suggests the closest name."""
        known = cls.declared()
        if name in known:
            return known[name]
        close = get_close_matches(name.upper(), known, 1, 0.6)
        hint = f"did you mean {close[0]}?" if close else f"known settings: {', '.join(known)}"
        raise UnknownSettingError(f"{name}: unknown setting; {hint}")

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None) -> Self:
        """Read and check the variables (by default this process's environment); an empty one means the default.

        Raises SettingsError, which names the variable.
        """
        settings = cls.read(os.environ if variables is None else variables)
        settings.check()
        return settings

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Self:
        """Read each variable by itself, without :meth:`check`. Raises SettingsError."""
        known = cls.declared().values()
        return cls(**{each.attribute: each.read(text) for each in known if (text := variables.get(each.name))})

    def check(self) -> None:
        """Raise SettingsError if settings contradict each other."""


def _choose(choices: Sequence[str], text: str) -> None:
    if text.lower() not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}")


@cache
def _declared(cls: type[Declaration]) -> Mapping[str, Setting]:
    types = get_type_hints(cls, include_extras=True)
    found: dict[str, Setting] = {}
    for each in msgspec.structs.fields(cls):
        info = inspect.type_info(types[each.name])
        assert isinstance(info, inspect.Metadata), f"{cls.__name__}.{each.name} has no description"
        extra, schema = info.extra or {}, info.extra_json_schema or {}
        found[each.encode_name] = Setting(
            each.encode_name,
            each.name,
            each.default,
            str(schema["description"]),
            extra["unit"],
            extra["secret"],
            extra["shared"],
            extra["expects"] or _expected(info.type),
            extra["show"],
            types[each.name],
            extra["check"],
        )
    return found


def _expected(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.StrType):
        return "text"
    assert isinstance(kind, (inspect.IntType, inspect.FloatType))
    noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    if kind.ge is not None and kind.le is not None:
        return f"{noun}, {kind.ge:,} to {kind.le:,}"
    if kind.gt is not None:
        return f"{noun} above {kind.gt:,}" + ("" if kind.le in (None, _ENDLESS) else f", at most {kind.le:,}")
    return noun if kind.ge is None else f"{noun}, at least {kind.ge:,}"


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)
