import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.helpers.pth import (
    EMPTY_DICT,
    MAGIC,
    Pth,
    Tensor,
    items,
    name,
    number,
    pickled,
    pth,
    state_dict,
    text,
)
from tuner.base.errors import NetworkError
from tuner.networks.torch_files import read_tensors

SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False)) | arrays(
    np.int64, SHAPES
)
SMALL = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.count": np.array(7)}
VALUES = np.arange(12, dtype=np.float32)


def refusal(file: Path) -> str:
    with pytest.raises(NetworkError) as caught:
        read_tensors(file)
    message = str(caught.value)
    assert message.startswith(f"The weights file {file} is refused: ")
    assert "\n" not in message
    return message


def read_or_refuse(file: Path) -> dict[str, np.ndarray]:
    try:
        return read_tensors(file)
    except NetworkError:
        return {}


def one(tmp_path: Path, tensor: Tensor, stored: np.ndarray = VALUES) -> Path:
    return Pth(state_dict({"w": tensor}), {"0": stored}).write(tmp_path / "one.pth")


# Files as PyTorch writes them


@settings(max_examples=60, deadline=None)
@given(tensors=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    read = read_tensors(pth(tensors).write(tmp_path_factory.getbasetemp() / "whole.pth"))
    assert list(read) == list(tensors)
    for key, array in tensors.items():
        assert read[key].dtype == array.dtype
        np.testing.assert_array_equal(read[key], array, strict=True)
        assert not read[key].flags.writeable


def test_a_tensor_is_a_view_of_its_storage(tmp_path: Path) -> None:
    tensors = {"part": Tensor("0", (2, 2), (1, 4), 12, offset=3), "row": Tensor("0", (4,), (1,), 12)}
    read = read_tensors(Pth(state_dict(tensors), {"0": VALUES}).write(tmp_path / "views.pth"))
    np.testing.assert_array_equal(read["part"], [[3, 7], [4, 8]])  # as a kernel that was permuted is stored
    np.testing.assert_array_equal(read["row"], VALUES[:4])


# Files that ask for more


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("torch", "load"),
        ("torch", "DoubleStorage"),
        ("collections", "OrderedDict.__init__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("tuner.networks.torch_files", "read_tensors"),
    ],
)
def test_a_name_that_tensors_do_not_need_is_refused(tmp_path: Path, module: str, attribute: str) -> None:
    body = name(module, attribute) + items(text("touch pwned")) + b"R"
    message = refusal(Pth(body, {}).write(tmp_path / "hostile.pth"))
    assert (
        f"its pickle names {module + '.' + attribute!r}, and tensors need no such thing. Get it anew"
        in message
    )


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["HOSTILE"],)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_a_file_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, place: int
) -> None:
    monkeypatch.setenv("HOSTILE", str(tmp_path / "made"))
    hostile = pickle.dumps(Runs(), protocol)
    whole = [
        pickled(number(MAGIC)),
        pickled(number(1001)),
        pth(SMALL).system,
        pickled(EMPTY_DICT),
        pickled(b"]"),
    ]
    whole[place] = hostile
    (tmp_path / "hostile.pth").write_bytes(b"".join(whole))
    refusal(tmp_path / "hostile.pth")
    assert not (tmp_path / "made").exists()
    pickle.loads(hostile)  # but for the reader it would
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("body", "instruction"),
    [
        (text("os") + text("system") + b"\x93", "STACK_GLOBAL"),
        (b"(ios\nsystem\n", "INST"),
        (b"(" + name("collections", "OrderedDict") + b"o", "OBJ"),
        (name("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
        (b"\x82\x01", "EXT1"),
        (b"Ppersistent\n", "PERSID"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\x96" + struct.pack("<Q", 3) + b"abc", "BYTEARRAY8"),
    ],
)
def test_an_instruction_that_tensors_do_not_need_is_refused(
    tmp_path: Path, body: bytes, instruction: str
) -> None:
    message = refusal(Pth(body, {}).write(tmp_path / "hostile.pth"))
    assert f"has the instruction {instruction}, and" in message


@pytest.mark.parametrize(
    "body",
    [
        name("collections", "OrderedDict") + items(items(items(text("a"), number(1)))) + b"R",
        name("torch", "FloatStorage") + items(number(10**9)) + b"R",
        text("collections OrderedDict") + b")R",
        EMPTY_DICT + b")R",
        name("torch._utils", "_rebuild_tensor_v2") + items(text("0"), *[number(0)] * 5) + b"R",
        items(text("storage"), text("torch FloatStorage"), text("0"), text("cpu"), number(1), b"N") + b"Q",
        items(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(1), b"N")
        + b"Q",
        EMPTY_DICT + text("w") + name("torch", "FloatStorage") + b"s",
        EMPTY_DICT + b")" + number(1) + b"s",
        EMPTY_DICT + b"(" + text("w") + b"u",
        b"t",
        b"u",
        b"R",
        b"\x86",
        b"h\x07",
        b"0",
    ],
)
def test_a_pickle_that_misuses_what_it_may_name_is_refused(tmp_path: Path, body: bytes) -> None:
    refusal(Pth(body, {}).write(tmp_path / "hostile.pth"))


# Files that would take the memory, the stack or the day


def test_lengths_that_are_not_there_are_not_reserved(tmp_path: Path) -> None:
    huge = struct.pack("<Q", 2**62)
    for body in (
        b"X\xff\xff\xff\xff",
        b"\x8d" + huge,
        b"\x8e" + huge,
        b"\x96" + huge,
        b"\x8b\xff\xff\xff\x7f",
    ):
        refusal(Pth(body, {}).write(tmp_path / "huge.pth"))


def test_a_memo_of_any_number_takes_no_memory(tmp_path: Path) -> None:
    body = EMPTY_DICT + b"r\xff\xff\xff\xff"  # `pickle` would reserve 64 GB
    assert read_tensors(Pth(body, {}).write(tmp_path / "memo.pth")) == {}


def test_nested_tuples_neither_end_the_process_nor_last_for_ever(tmp_path: Path) -> None:
    deep = b")" + b"\x85" * 200_000
    doubled = b")" + b"".join(b"q%ch%c\x86" % (place, place) for place in range(100))
    for body in (deep, doubled):
        refusal(Pth(EMPTY_DICT + body + b"Ns", {}).write(tmp_path / "key.pth"))
        refusal(Pth(EMPTY_DICT + text("w") + body + b"s", {}).write(tmp_path / "value.pth"))


def test_a_pickle_too_long_for_tensors_is_refused(tmp_path: Path) -> None:
    assert "too long for tensors" in refusal(Pth(text("w" * 2**20), {}).write(tmp_path / "long.pth"))


def test_a_file_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(2**40)  # takes no room
    assert "larger than 64 MiB" in refusal(tmp_path / "large.pth")


# Tensors that do not fit


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("0", (13,), (1,), 12),
        Tensor("0", (12,), (1,), 12, offset=1),
        Tensor("0", (2, 2), (1, 11), 12),
        Tensor("0", (2,), (-1,), 12, offset=1),
        Tensor("0", (-1,), (1,), 12),
        Tensor("0", (4,), (1,), 12, offset=-2),
        Tensor("0", (2, 3), (1,), 12),
        Tensor("0", (2**40, 2**40), (0, 0), 12),
        Tensor("0", (10**6,), (0,), 12),
        Tensor("0", (0, 2**70), (1, 1), 12),
        Tensor("0", (2,), (2**70,), 12),
        Tensor("0", (1,) * 9, (1,) * 9, 12),
        Tensor("0", (12,), (1,), 12, offset=2**70),
        Tensor("0", (12,), (1,), 11),
        Tensor("0", (12,), (1,), 2**62),
        Tensor("0", (12,), (1,), -1),
        Tensor("1", (12,), (1,), 12),
        Tensor("0", (12,), (1,), 12, kind="LongStorage"),
        Tensor("0", (12,), (1,), 12, kind="HalfStorage"),
    ],
    ids=repr,
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    refusal(one(tmp_path, tensor))


def test_a_storage_of_two_kinds_is_refused(tmp_path: Path) -> None:
    tensors = {"a": Tensor("0", (1,), (1,), 12), "b": Tensor("0", (1,), (1,), 12, kind="LongStorage")}
    message = refusal(Pth(state_dict(tensors), {"0": VALUES}).write(tmp_path / "two.pth"))
    assert "its storage '0' is described in two ways" in message


@pytest.mark.parametrize("keys", [["0", "0"], ["1"], ["0", "1"]])
def test_storages_that_no_tensor_has_are_refused(tmp_path: Path, keys: list[str]) -> None:
    whole = Pth(state_dict({"w": Tensor("0", (12,), (1,), 12)}), {"0": VALUES}, keys=keys)
    assert "its storages are not those of its tensors" in refusal(whole.write(tmp_path / "keys.pth"))


def test_a_name_of_any_length_and_sign_makes_one_short_sentence(tmp_path: Path) -> None:
    for odd in (
        name("os\x1b[31m", "system" * 10**5),
        EMPTY_DICT + text("\n\x1b" * 10**5) + number(3) + b"s",
    ):
        message = refusal(Pth(odd, {}).write(tmp_path / "odd.pth"))
        assert message.isprintable()
        assert len(message) < 600 + len(str(tmp_path))


def test_storages_in_another_order_are_refused(tmp_path: Path) -> None:
    tensors = {"a": Tensor("0", (5,), (1,), 5), "b": Tensor("1", (7,), (1,), 7)}
    whole = Pth(state_dict(tensors), {"0": VALUES[:7], "1": VALUES[:5]})
    assert "its storage '0' has another length" in refusal(whole.write(tmp_path / "order.pth"))


def test_a_storage_cut_after_what_a_tensor_needs_is_refused(tmp_path: Path) -> None:
    cut = one(tmp_path, Tensor("0", (2,), (1,), 12))
    cut.write_bytes(cut.read_bytes()[:-4])
    assert "it ends too early" in refusal(cut)


def test_an_entry_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    body = EMPTY_DICT + text("epoch") + number(3) + b"s"
    assert "its entry 'epoch' is no tensor" in refusal(Pth(body, {}).write(tmp_path / "checkpoint.pth"))


# Damaged files


@pytest.mark.parametrize("change", ["magic", "protocol", "order", "end"])
def test_another_format_is_refused(tmp_path: Path, change: str) -> None:
    whole = pth(SMALL)
    match change:
        case "magic":
            whole.start = pickled(number(MAGIC + 1)) + pickled(number(1001))
        case "protocol":
            whole.start = pickled(number(MAGIC)) + pickled(number(1002))
        case "order":
            whole.system = pickled(b"}(" + text("little_endian") + b"\x89u")
        case "end":
            whole.end = b"\0"
    refusal(whole.write(tmp_path / "other.pth"))


def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    content = pth(SMALL).write(tmp_path / "whole.pth").read_bytes()
    for length in range(len(content)):
        (tmp_path / "short.pth").write_bytes(content[:length])
        refusal(tmp_path / "short.pth")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pth(SMALL).write(tmp_path / "whole.pth").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "changed.pth").write_bytes(content)
    assert sum(tensor.nbytes for tensor in read_or_refuse(tmp_path / "changed.pth").values()) <= len(
        content
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.pth").write_bytes(content)
    refusal(tmp_path / "any.pth")
    assert read_or_refuse(Pth(content, {}).write(tmp_path / "inside.pth")) == {}


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"none\.pth cannot be read: No such file"):
        read_tensors(tmp_path / "none.pth")
    with pytest.raises(NetworkError, match="cannot be read: Is a directory"):
        read_tensors(tmp_path)
