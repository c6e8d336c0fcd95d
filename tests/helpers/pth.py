"""Files in PyTorch's old format, written instruction by instruction: whole ones, and any other."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def items(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return items(*map(number, values))


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


EMPTY_DICT = name("collections", "OrderedDict") + b")R"


@dataclass
class Tensor:
    """A tensor as a state dict has it: any part of it can be told otherwise than it is."""

    key: str
    shape: Sequence[int]
    strides: Sequence[int]
    count: int
    offset: int = 0
    kind: str = "FloatStorage"

    def pickle(self) -> bytes:
        identity = (
            text("storage"),
            name("torch", self.kind),
            text(self.key),
            text("cpu"),
            number(self.count),
            b"N",
        )
        view = (number(self.offset), numbers(self.shape), numbers(self.strides), b"\x89", EMPTY_DICT)
        return name("torch._utils", "_rebuild_tensor_v2") + items(items(*identity) + b"Q", *view) + b"R"


@dataclass
class Pth:
    """A whole file; tests change one part of it."""

    tensors: bytes
    storages: Mapping[str, np.ndarray]
    start: bytes = pickled(number(MAGIC)) + pickled(number(PROTOCOL))
    system: bytes = pickled(b"}(" + text("little_endian") + b"\x88u")
    keys: list[str] = field(default_factory=list)
    end: bytes = b""

    def write(self, file: Path) -> Path:
        keys = pickled(b"](" + b"".join(map(text, self.keys or self.storages)) + b"e")
        values = (struct.pack("<q", stored.size) + stored.tobytes() for stored in self.storages.values())
        file.write_bytes(
            self.start + self.system + pickled(self.tensors) + keys + b"".join(values) + self.end
        )
        return file


def state_dict(tensors: Mapping[str, Tensor]) -> bytes:
    """The instructions of a state dict; PyTorch hangs its layers' versions on it, and so does this."""
    entries = b"".join(text(key) + tensor.pickle() for key, tensor in tensors.items())
    versions = b"}" + text("_metadata") + EMPTY_DICT + b"s"
    return EMPTY_DICT + b"(" + entries + b"u" + versions + b"b"


def pth(arrays: Mapping[str, np.ndarray]) -> Pth:
    """A file of float32 and int64 arrays, each in a storage of its own."""
    tensors, storages = {}, {}
    for number_, (key, array) in enumerate(arrays.items()):
        kind = {"<f4": "FloatStorage", "<i8": "LongStorage"}[array.dtype.str]
        strides = [stride // array.itemsize for stride in np.zeros(array.shape, array.dtype).strides]
        tensors[key] = Tensor(str(number_), array.shape, strides, array.size, kind=kind)
        storages[str(number_)] = array.reshape(-1)
    return Pth(state_dict(tensors), storages)
