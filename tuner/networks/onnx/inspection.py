"""What an ONNX file asks for, read from its bytes before anything opens it: opset, operators, other files.

ONNX's own package reads all of a file into memory and is not installed where models are served; what is
asked here is a few fields of a protocol buffer, whose large ones are stepped over.

References
----------
`onnx.proto` of ONNX's repository; Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tuner.base.errors import NetworkError

_OWN = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # the domains of ONNX Runtime's operators
_DEEPEST = 8  # graphs within graphs, as in loops; networks have none or one
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# Messages: which fields hold further messages, by their numbers, and which of them tell something.
_TENSOR: dict[int, str] = {13: "external", 14: "location"}
_SPARSE = {1: "tensor", 2: "tensor"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_NODE = {5: "attribute", 7: "domain"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_FUNCTION = {7: "node", 9: "opset"}
_OPSET = {1: "domain", 2: "version"}
_MODEL = {7: "graph", 8: "opset", 25: "function"}
_MESSAGES = {
    "attribute": _ATTRIBUTE,
    "function": _FUNCTION,
    "graph": _GRAPH,
    "node": _NODE,
    "opset": _OPSET,
    "sparse": _SPARSE,
    "tensor": _TENSOR,
}


@dataclass
class OnnxFacts:
    """What an ONNX file asks for.

    Attributes
    ----------
    opset
        The newest version of a set of operators that it names.
    domains
        Whose operators it names; the empty one is ONNX's own.
    external
        Whether some of its weights are in other files.
    """

    opset: int = 0
    domains: set[str] = field(default_factory=set)
    external: bool = False


def inspect_onnx(file: Path) -> OnnxFacts:
    """Read what an ONNX file asks for; nothing of it is executed.

    Raises
    ------
    NetworkError
        It is missing, or no ONNX file.
    """
    facts = OnnxFacts()
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            _collect(data, _MODEL, facts, 0)
    except FileNotFoundError:
        raise NetworkError(f"There is no network {file}: check the path.") from None
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise NetworkError(f"The network {file} is no ONNX file that can be read: {error}.") from None
    if not facts.opset:
        raise NetworkError(f"The network {file} is no ONNX file that can be read: it names no operators.")
    return facts


def check_onnx(file: Path) -> OnnxFacts:
    """Refuse an ONNX file that brings its own operators or needs other files.

    Raises
    ------
    NetworkError
        It does, or as of `inspect_onnx`.
    """
    facts = inspect_onnx(file)
    foreign = sorted(facts.domains - _OWN)
    if foreign:
        raise NetworkError(
            f"The network {file} has custom operators ({', '.join(foreign)}), which are not executed: "
            "build it from ONNX's own."
        )
    if facts.external:
        raise NetworkError(
            f"The network {file} keeps weights in other files (ONNX's external data), which are not read: "
            "save it as one file."
        )
    return facts


def _collect(data: memoryview, fields: dict[int, str], facts: OnnxFacts, depth: int) -> None:
    if depth > 3 * _DEEPEST:  # graph, node, attribute
        raise ValueError("its graphs are nested too deeply")
    for number, value in _fields(data):
        kind = fields.get(number)
        if kind is None:
            continue
        if kind == "version":
            facts.opset = max(facts.opset, _number(value))
        elif kind == "domain":
            facts.domains.add(_bytes(value).decode())
        elif kind == "external" or (kind == "location" and _number(value) != 0):
            facts.external = True
        elif kind in _MESSAGES:
            with _part(value) as part:
                _collect(part, _MESSAGES[kind], facts, depth + 1)


def _number(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("a number is something else")


def _part(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a part of it is a number")
    return value


def _bytes(value: int | memoryview) -> bytes:
    return bytes(_part(value))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and what it holds."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, place = _varint(data, place)
        if size is None:
            raise ValueError("its bytes are no protocol buffer")
        if place + size > len(data):
            raise ValueError("it is cut off")
        if wire == _BYTES:
            with data[place : place + size] as part:
                yield key >> 3, part
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut off")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("its bytes are no protocol buffer")
