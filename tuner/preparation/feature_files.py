"""Features written for other tools: one HDF5, NumPy or Parquet file a network, whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from tuner.base.columns import FEATURES, LABEL_INDEX, PART, PATH
from tuner.base.errors import CacheError
from tuner.base.files import write_aside, writing
from tuner.base.uris import local_path
from tuner.extraction.cache import FeatureCache
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages
from tuner.preparation.matrices import map_new_file

_BLOCK_BYTES = 8 * 2**20  # of features, held at once
_SCRATCH = "features.npy"

Advance = Callable[[int], object]  # told how many more rows were read or written
Blocks = Iterator[tuple[slice, np.ndarray]]  # rows and their features, in order


def export_files(target: str, networks: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """Name the file of each network, before anything is computed.

    Parameters
    ----------
    target
        Where to write: ``*.h5`` (or ``.hdf5``), ``*.npz`` or ``*.parquet``. Of several networks each has a
        file of its own: ``features.h5`` becomes ``features-VGG16.h5`` and so on.
    networks
        Their names.
    overwrite
        Whether a file that is there may be replaced.

    Raises
    ------
    CacheError
        The format is another one, the place is no path of this machine, or a file is there already.
    """
    try:
        path = local_path(target)
    except ValueError as error:
        raise CacheError(f"The features cannot be written to {target}: {error}.") from error
    if path is None:
        raise CacheError(
            f"Features are exported to a file of this machine, and {target} is none: give a path."
        )
    if path.suffix.lower() not in _FORMATS:
        raise CacheError(
            f"The features cannot be written to {target}: its name must end in {', '.join(_FORMATS)}."
        )
    names = [path] if len(networks) == 1 else [path.with_stem(f"{path.stem}-{name}") for name in networks]
    for name in names:
        if name.is_dir():
            raise CacheError(f"The features cannot be written to {name}, which is a folder.")
        if name.exists() and not overwrite:
            raise CacheError(f"{name} exists already: give --overwrite or another --export.")
    return dict(zip(networks, names, strict=True))


def export_features(
    cache: FeatureCache, prepared: PreparedImages, network: Network, target: Path, console: Console
) -> None:
    """Write a network's features of all usable images, with a progress bar; memory stays the same.

    Rows stand in the order of their digests, which is as good as shuffled and always the same.

    Parameters
    ----------
    cache
        Where the features are.
    prepared
        The images, with labels and parts.
    network
        Whose features.
    target
        The file, whose ending says the format; one that is there is replaced.
    console
        Where the bar is drawn.

    Raises
    ------
    CacheError
        The file cannot be written, or the cache lost features.
    """
    rows = in_order(prepared.index)
    write = _FORMATS[target.suffix.lower()]

    def write_all(aside: Path) -> None:
        scratch = aside.parent / _SCRATCH  # what the cache has in its own order, in that of the rows
        matrix = map_new_file(scratch, (len(rows), network.width))
        cache.load_into(matrix, network, list(rows["digest"]), advance)
        matrix.flush()
        write(aside, rows, prepared.labels, matrix, advance)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        writing("The file of features", target, "free the disk or give another --export"),
        ProgressBar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task(target.name, total=rows["digest"].nunique() + len(rows))
        advance: Advance = lambda count: bar.advance(task, count)  # noqa: E731
        target.parent.mkdir(parents=True, exist_ok=True)
        write_aside(target, write_all)
    console.print(
        f"{target}: {len(rows)} images x {network.width} features of {network.name}",
        markup=False,
        soft_wrap=True,
    )


def in_order(index: pd.DataFrame) -> pd.DataFrame:
    """The rows of images as they are given out: by their digests, which is as good as shuffled."""
    return index.sort_values(["digest", PATH], ignore_index=True)


def _blocks(matrix: np.ndarray, advance: Advance) -> Blocks:
    step = max(1, _BLOCK_BYTES // max(1, matrix.strides[0]))
    for start in range(0, len(matrix), step):
        rows = slice(start, min(start + step, len(matrix)))
        yield rows, np.array(matrix[rows])
        advance(rows.stop - rows.start)


def _write_hdf5(
    target: Path, rows: pd.DataFrame, labels: Sequence[str], matrix: np.ndarray, advance: Advance
) -> None:
    with h5py.File(target, "w") as file:
        features = file.create_dataset("features", matrix.shape, np.float32)
        for place, block in _blocks(matrix, advance):
            features[place] = block
        file["labels"] = rows[LABEL_INDEX].to_numpy(np.int64)
        for name, values in (("label_names", labels), ("paths", rows[PATH]), ("parts", rows[PART])):
            file.create_dataset(name, data=list(values), dtype=h5py.string_dtype())


def _write_npz(
    target: Path, rows: pd.DataFrame, labels: Sequence[str], matrix: np.ndarray, advance: Advance
) -> None:
    arrays = {
        "labels": rows[LABEL_INDEX].to_numpy(np.int64),
        "label_names": np.array(labels, str),
        "paths": rows[PATH].to_numpy(str),
        "parts": rows[PART].to_numpy(str),
    }
    with zipfile.ZipFile(target, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(matrix))
            for _, block in _blocks(matrix, advance):
                member.write(block.data)
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def _write_parquet(
    target: Path, rows: pd.DataFrame, _: Sequence[str], matrix: np.ndarray, advance: Advance
) -> None:
    kinds = {PATH: pa.string(), "label": pa.string(), LABEL_INDEX: pa.int64(), PART: pa.string()}
    schema = pa.schema([*kinds.items(), (FEATURES, pa.list_(pa.float32()))])
    with pq.ParquetWriter(target, schema) as writer:
        for place, block in _blocks(matrix, advance):
            some = rows.iloc[place]
            offsets = np.arange(len(block) + 1, dtype=np.int32) * matrix.shape[1]
            lists = pa.ListArray.from_arrays(offsets, block.reshape(-1))
            columns = [pa.array(some[name], kind, from_pandas=True) for name, kind in kinds.items()]
            writer.write_batch(pa.record_batch([*columns, lists], schema=schema))


_FORMATS = {".h5": _write_hdf5, ".hdf5": _write_hdf5, ".npz": _write_npz, ".parquet": _write_parquet}
