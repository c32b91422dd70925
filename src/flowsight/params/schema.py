"""Mappings read from YAML into frozen dataclasses, with errors that name the key.

The check is done once, at the edge: unknown keys, missing keys and wrong types are refused
with the full dotted name; ranges are checked by each dataclass in `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from flowsight.errors import InputError

Block = TypeVar("Block")


def check(condition: bool, message: str) -> None:
    """For `__post_init__`: refuse a value out of range; `read` adds the dotted name."""
    if not condition:
        raise ValueError(message)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices."""
    check(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}")


def read(cls: type[Block], values: Any, where: str) -> Block:
    """Make a dataclass from a mapping.

    Args:
        cls: a frozen dataclass whose annotations are builtin types, tuples, dicts, optionals
            or dataclasses.
        values: what YAML gave.
        where: dotted name used in messages (`classifiers.params.spatial.train`).

    Raises:
        InputError: unknown key, missing key, wrong type or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"expected a mapping at `{where}`, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise InputError(f"unknown parameter `{where}.{key}`; {_suggest(str(key), fields)}")
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"missing parameter `{where}.{name}`")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise InputError(f"`{where}`: {error}") from None


def _suggest(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known: {', '.join(sorted(known))}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (hint,) = [kind for kind in inner if kind is not type(None)]
        return _convert(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), value, where)
    if origin is tuple:
        return _convert_tuple(inner, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"expected a mapping at `{where}`, got {value!r}")
        return {str(k): _convert(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_tuple(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, typing.Sequence):
        raise InputError(f"expected a list at `{where}`, got {value!r}")
    if inner[-1] is not Ellipsis and len(value) != len(inner):
        raise InputError(f"expected {len(inner)} values at `{where}`, got {len(value)}: {value!r}")
    return tuple(_convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python; `epochs: true` is a mistake all the same
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"expected {hint.__name__} at `{where}`, got {value!r}")
    # ruamel's scalar types keep formatting; plain ones compare and print as people expect
    return hint(value)
