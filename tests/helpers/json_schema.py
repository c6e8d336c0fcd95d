"""Whether a value fits a JSON Schema: the keywords that an experiment's has, and no others."""

import re
from typing import Any

_TYPES = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_SAYS_NOTHING = {"$schema", "$defs", "title", "description", "default", "format"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> bool:
    """Whether it fits.

    Raises
    ------
    KeyError
        The schema has a keyword that is not known here.
    """
    root = schema if root is None else root
    return all(
        _CHECKS[keyword](value, given, schema, root)
        for keyword, given in schema.items()
        if keyword not in _SAYS_NOTHING
    )


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, bool) and kind != "boolean")


def _properties(value: Any, given: Any, schema: Any, root: Any) -> bool:
    return not isinstance(value, dict) or all(
        fits(inner, given[key], root) for key, inner in value.items() if key in given
    )


_CHECKS: dict[str, Any] = {
    "type": lambda value, given, *_: _is(value, given),
    "enum": lambda value, given, *_: value in given,
    "const": lambda value, given, *_: value == given,
    "anyOf": lambda value, given, _, root: any(fits(value, option, root) for option in given),
    "$ref": lambda value, given, _, root: fits(value, root["$defs"][given.rpartition("/")[2]], root),
    "properties": _properties,
    "required": lambda value, given, *_: not isinstance(value, dict) or set(given) <= set(value),
    "additionalProperties": lambda value, given, schema, _: (
        given or not isinstance(value, dict) or set(value) <= set(schema["properties"])
    ),
    "items": lambda value, given, _, root: (
        not isinstance(value, list) or all(fits(item, given, root) for item in value)
    ),
    "prefixItems": lambda value, given, _, root: (
        not isinstance(value, list)
        or all(fits(item, part, root) for item, part in zip(value, given, strict=False))
    ),
    "minItems": lambda value, given, *_: not isinstance(value, list) or len(value) >= given,
    "maxItems": lambda value, given, *_: not isinstance(value, list) or len(value) <= given,
    "minLength": lambda value, given, *_: not isinstance(value, str) or len(value) >= given,
    "maxLength": lambda value, given, *_: not isinstance(value, str) or len(value) <= given,
    "pattern": lambda value, given, *_: not isinstance(value, str) or re.search(given, value) is not None,
    "minimum": lambda value, given, *_: not _is(value, "number") or value >= given,
    "maximum": lambda value, given, *_: not _is(value, "number") or value <= given,
    "exclusiveMinimum": lambda value, given, *_: not _is(value, "number") or value > given,
    "exclusiveMaximum": lambda value, given, *_: not _is(value, "number") or value < given,
}
