import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from tests.helpers import onnx_files
from tuner.base.errors import NetworkError
from tuner.networks.onnx.inspection import check_onnx, inspect_onnx

GOOD = onnx_files.small_network().SerializeToString()


def test_opset_and_domains_are_read(tmp_path: Path) -> None:
    facts = inspect_onnx(onnx_files.saved(onnx_files.small_network(), tmp_path))
    assert (facts.opset, facts.external, facts.domains - {""}) == (17, False, set())
    foreign = inspect_onnx(onnx_files.saved(onnx_files.with_a_foreign_operator(), tmp_path))
    assert "com.example" in foreign.domains


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_weights_in_other_files_are_refused(location: str, tmp_path: Path) -> None:
    file = onnx_files.saved(onnx_files.with_weights_elsewhere(tmp_path, location), tmp_path)
    with pytest.raises(
        NetworkError, match=f"^The network {re.escape(str(file))} keeps weights in other files"
    ):
        check_onnx(file)


@pytest.mark.parametrize(
    "model",
    [onnx_files.with_a_foreign_operator(), onnx_files.with_a_foreign_operator_inside()],
    ids=["outside", "in a branch"],
)
def test_foreign_operators_are_refused(model: ModelProto, tmp_path: Path) -> None:
    del model.opset_import[1:]  # what a node names counts, whatever the model states
    with pytest.raises(
        NetworkError, match=r"has custom operators \(com\.example\), which are not executed"
    ):
        check_onnx(onnx_files.saved(model, tmp_path))


@given(data=st.binary(max_size=60) | st.integers(0, len(GOOD) - 1).map(lambda end: GOOD[:end]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_no_onnx_file_gets_a_sentence(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "damaged.onnx"
    file.write_bytes(data)
    with suppress(NetworkError):  # and nothing else; bytes at random may be read
        inspect_onnx(file)


def test_graphs_nested_without_end_get_a_sentence(tmp_path: Path) -> None:
    data = b""
    for _ in range(2000):  # graph, node, attribute, graph, …
        for key in (b"\x32", b"\x2a", b"\x0a"):
            data = key + varint(len(data)) + data
    file = tmp_path / "deep.onnx"
    file.write_bytes(b"\x3a" + varint(len(data)) + data)
    with pytest.raises(NetworkError, match="nested too deeply"):
        inspect_onnx(file)


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"^There is no network .*none\.onnx: check the path\.$"):
        inspect_onnx(tmp_path / "none.onnx")
