"""Tensors of PyTorch's old file format, read without PyTorch and without running anything."""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tuner.base.errors import NetworkError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LARGEST_FILE = 64 * 2**20
_LONGEST_PICKLE = 2**20  # a thousand tensors take a fifth of it
_MOST_DIMENSIONS = 8


class _Global(Enum):
    """The names that a pickle of tensors needs; none of them is looked up or called."""

    ORDERED_DICT = "collections OrderedDict"
    FLOATS = "torch FloatStorage"
    LONGS = "torch LongStorage"
    TENSOR = "torch._utils _rebuild_tensor_v2"


_DTYPES: dict[Any, np.dtype[Any]] = {_Global.FLOATS: np.dtype("<f4"), _Global.LONGS: np.dtype("<i8")}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_DAMAGED = "it is damaged, or not of PyTorch's old format"

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count values, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(Exception):
    """What a file holds is not taken; the message is the middle of a sentence."""


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a ``.pth`` file in the format that `torch.save` wrote before PyTorch 1.6.

    Parameters
    ----------
    file : Path
        Three pickles (magic number, protocol, system), the state dict with its storages named, the list of
        their keys, then each storage: its length (int64) and its values.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 or int64, read-only, in the order of the file.

    Raises
    ------
    NetworkError
        The file cannot be read, is damaged, or asks for anything but tensors; nothing of it was run.

    References
    ----------
    `torch.serialization._legacy_save`; the instructions are those of `pickletools`.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise NetworkError(f"The weights file {file} cannot be read: {error.strerror}.") from error
    try:
        return _read(content)
    except _RefusedError as refused:
        reason = str(refused)
    except (ValueError, LookupError, OverflowError):  # the parsers', of bytes that mean nothing
        reason = _DAMAGED
    raise NetworkError(f"The weights file {file} is refused: {reason}. Get it anew from its source.")


def _read(content: bytes) -> dict[str, np.ndarray]:
    if len(content) > _LARGEST_FILE:
        raise _RefusedError(f"it is larger than {_LARGEST_FILE // 2**20} MiB")
    stream = io.BytesIO(content)
    match [_load(stream) for _ in range(5)]:
        case [magic, protocol, {"little_endian": True}, dict(tensors), list(keys)] if (
            magic == _MAGIC and protocol == _PROTOCOL
        ):
            storages = _read_storages(stream, keys, _declared(tensors))
            return {name: _view(tensor, storages) for name, tensor in tensors.items()}
    raise _RefusedError(_DAMAGED)


def _declared(tensors: dict[str, Any]) -> dict[str, _Storage]:
    """Return the storages that the tensors name, by key."""
    declared: dict[str, _Storage] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, _Tensor):
            raise _RefusedError(f"its entry {_shown(name)} is no tensor")
        if declared.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise _RefusedError(f"its storage {_shown(tensor.storage.key)} is described in two ways")
    return declared


def _read_storages(
    stream: io.BytesIO, keys: list[Any], declared: dict[str, _Storage]
) -> dict[str, np.ndarray]:
    if len(keys) != len(declared) or {_expect(str, key) for key in keys} != declared.keys():
        raise _RefusedError("its storages are not those of its tensors")
    storages = {}
    for key in keys:
        storage = declared[key]
        if int.from_bytes(stream.read(8), "little", signed=True) != storage.count:
            raise _RefusedError(f"its storage {_shown(key)} has another length than its tensors say")
        values = stream.read(storage.count * storage.dtype.itemsize)
        storages[key] = np.frombuffer(values, storage.dtype)
        if len(storages[key]) != storage.count:
            raise _RefusedError("it ends too early")
    if stream.read(1):
        raise _RefusedError("it goes on after its last storage")
    return storages


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Return a tensor's values; NumPy keeps the view within its storage."""
    storage, itemsize = storages[tensor.storage.key], tensor.storage.dtype.itemsize
    if math.prod(tensor.shape) > len(storage):  # strides of 0 make any size of a few bytes
        raise _RefusedError("it has a tensor larger than its storage")
    strides = tuple(stride * itemsize for stride in tensor.strides)
    return np.ndarray(tensor.shape, storage.dtype, storage.data, tensor.offset * itemsize, strides)


def _load(stream: io.BytesIO) -> Any:
    """Load the pickle that begins here: text, numbers, tuples, lists, dicts by text, storages and tensors.

    Not by `pickle.Unpickler` with a `find_class` of our own: nine bytes have it reserve gigabytes for its
    memo, and a hundred more hash nested tuples for ever or until the stack overflows.
    """
    machine, start = _Machine(), stream.tell()
    for opcode, argument, place in pickletools.genops(stream):
        if place is None or place - start > _LONGEST_PICKLE:
            raise _RefusedError("its pickle is too long for tensors")
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise _RefusedError(_DAMAGED)


class _Machine:
    """The stack machine of a pickle, with the instructions that tensors need; it calls nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, instruction: str, argument: Any) -> None:
        stack = self.stack
        match instruction:
            case "PROTO":
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[instruction])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append(_CONTAINERS[instruction]())
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._take_marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(int(instruction[-1]))))
            case "APPENDS":
                items = self._take_marked()
                _expect(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._take(2) if instruction == "SETITEM" else self._take_marked()
                keys = [_expect(str, key) for key in items[::2]]
                _expect(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_find_global(argument))
            case "BINPERSID":
                stack.append(_make_storage(stack.pop()))
            case "REDUCE":
                stack.append(_make(*self._take(2)))
            case "BUILD":  # the versions of a network's layers, which PyTorch hangs on its state dict
                stack.pop()
            case _:
                raise _RefusedError(
                    f"its pickle has the instruction {instruction}, and tensors need none such"
                )

    def _take(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if count < 0 or start < 0:
            raise _RefusedError(_DAMAGED)
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _take_marked(self) -> list[Any]:
        return self._take(len(self.stack) - self._marks.pop())


def _find_global(name: str) -> _Global:
    try:
        return _Global(name)
    except ValueError:
        raise _RefusedError(
            f"its pickle names {_shown(name.replace(' ', '.'))}, and tensors need no such thing"
        ) from None


def _make_storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", _Global.FLOATS | _Global.LONGS as kind, str(key), str(), int(count), None):
            return _Storage(key, _DTYPES[kind], count)
    raise _RefusedError("its pickle has a storage that is none of floats or longs")


def _make(function: Any, arguments: Any) -> Any:
    """Return what PyTorch's two functions would make of their arguments."""
    match function, arguments:
        case _Global.ORDERED_DICT, ():
            return {}
        case _Global.TENSOR, (_Storage() as storage, offset, tuple(shape), tuple(strides), bool(), dict()):
            numbers = (offset, *shape, *strides)
            if len(shape) <= _MOST_DIMENSIONS and all(isinstance(n, int) and n >= 0 for n in numbers):
                return _Tensor(storage, offset, shape, strides)
    raise _RefusedError("its pickle has a tensor that is not written as PyTorch writes one")


def _expect(kind: type[_Kind], value: Any) -> _Kind:
    if not isinstance(value, kind):
        raise _RefusedError(_DAMAGED)
    return value


def _shown(name: str) -> str:
    return repr(name[:60])
