"""What MLlib saved of a fitted classifier: read by pyarrow as a head, and carried into a pipeline's folder.

MLlib's models show their nodes to nobody but the files that they are saved in.

References
----------
In Spark's sources: `NodeData` and `EnsembleNodeData` (`treeModels.scala`), and the writers of each model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from tuner.base.errors import TrialError
from tuner.base.uris import literal
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import FactorizationHead, MarginsHead, NaiveBayesHead, PerceptronHead
from tuner.classifiers.heads.trees import TreesHead
from tuner.classifiers.rows.row import Classifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class SavedStage:
    """A stage that MLlib itself wrote to a folder, local or shared."""

    source: Path

    @property
    def uid(self) -> str:
        """The stage's id, as its metadata has it."""
        return str(_metadata(self.source)["uid"])

    def write(self, folder: Path) -> None:
        """Copy it; Hadoop's checksums stay behind, for they are of these paths."""
        shutil.copytree(self.source, folder, ignore=shutil.ignore_patterns(".*.crc"))


def bring_saved(spark: SparkSession, uri: str, folder: Path) -> None:
    """Bring what MLlib saved on a Hadoop filesystem to a folder of this machine, which is made.

    Spark reads the files, so that one does it that has no JVM: a session of Connect, in a worker.
    """
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", True)
    _, _, name = uri.rpartition("/")
    for path, content in reader.load(literal(uri)).select("path", "content").collect():
        file = folder / path.rpartition(f"/{name}/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def read_saved(folder: Path, row: Classifier, classes: int) -> Head:
    """Read a saved model of one of MLlib's classifiers, but logistic regression.

    Parameters
    ----------
    folder
        What its `save` made.
    row
        Its row in the table.
    classes
        How many classes there are.

    Raises
    ------
    TrialError
        A class had no images to fit on, and MLlib's model does not know it.
    """
    if row.one_vs_rest:
        parts = sorted(folder.glob("model_*"), key=lambda part: int(part.name.removeprefix("model_")))
        _check_classes(row, len(parts), classes)
        return _ONE_VS_REST[row.name](parts)
    head = _READERS[row.name](folder)
    known = head.score(np.zeros((1, _width(folder, head)))).shape[1]
    _check_classes(row, known, classes)
    return head


def _check_classes(row: Classifier, known: int, classes: int) -> None:
    if known != classes:
        raise TrialError(
            f"{row.title} was fitted on {known} of {classes} classes: each needs an image in every "
            "part that is fitted on; give the rare ones more images."
        )


def _width(folder: Path, head: Head) -> int:
    if isinstance(head, NaiveBayesHead):
        return head.theta.shape[1]
    if isinstance(head, PerceptronHead):
        return int(head.layers[0])
    return int(_metadata(folder)["numFeatures"])


def _metadata(folder: Path) -> dict[str, Any]:
    (part,) = (folder / "metadata").glob("part-*")
    data: dict[str, Any] = json.loads(part.read_text(encoding="utf-8"))
    return data


def _params(folder: Path) -> dict[str, Any]:
    metadata = _metadata(folder)
    return {**metadata["defaultParamMap"], **metadata["paramMap"]}


def _rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet folder, whose files Spark's tasks wrote."""
    return [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def _row(folder: Path) -> dict[str, Any]:
    (row,) = _rows(folder / "data")
    return row


def _vector(data: Mapping[str, Any]) -> np.ndarray:
    """MLlib's `VectorUDT`, dense or sparse."""
    values = np.asarray(data["values"], np.float64)
    if data["size"] is None:
        return values
    dense = np.zeros(data["size"])
    dense[data["indices"]] = values
    return dense


def _matrix(data: Mapping[str, Any]) -> np.ndarray:
    """MLlib's `MatrixUDT`, dense or sparse, by columns or, transposed, by rows."""
    rows, columns = data["numRows"], data["numCols"]
    lines, length = (rows, columns) if data["isTransposed"] else (columns, rows)
    dense = np.zeros((lines, length))
    if data["colPtrs"] is None:
        dense[:] = np.reshape(data["values"], (lines, length))
    else:
        line = np.repeat(np.arange(lines), np.diff(data["colPtrs"]))
        dense[line, data["rowIndices"]] = data["values"]
    return dense if data["isTransposed"] else dense.T


def _naive_bayes(folder: Path) -> NaiveBayesHead:
    data, kind = _row(folder), _params(folder)["modelType"]
    sigma = _matrix(data["sigma"]) if kind == "gaussian" else np.empty((0, 0))
    prior = np.array(kind != "complement")
    return NaiveBayesHead(_vector(data["pi"]), _matrix(data["theta"]), sigma, prior)


def _perceptron(folder: Path) -> PerceptronHead:
    return PerceptronHead(np.asarray(_params(folder)["layers"]), _vector(_row(folder)["weights"]))


def _margins(parts: Sequence[Path]) -> MarginsHead:
    data = [_row(part) for part in parts]
    return MarginsHead(
        np.stack([_vector(one["coefficients"]) for one in data]),
        np.array([one["intercept"] for one in data]),
    )


def _factorization(parts: Sequence[Path]) -> FactorizationHead:
    data = [_row(part) for part in parts]
    return FactorizationHead(
        np.array([one["intercept"] for one in data]),
        np.stack([_vector(one["linear"]) for one in data]),
        np.stack([_matrix(one["factors"]) for one in data]),
    )


def _tree(folder: Path) -> TreesHead:
    nodes = {0: _rows(folder / "data")}
    return _joined(nodes, _votes, shares=True)


def _forest(folder: Path) -> TreesHead:
    return _joined(_by_tree(folder), _votes, shares=True)


def _boosted(parts: Sequence[Path]) -> TreesHead:
    trees: dict[int, list[dict[str, Any]]] = {}
    values: dict[int, tuple[int, float]] = {}  # by tree: its class, its weight
    for index, part in enumerate(parts):
        weights = {row["_1"]: row["_3"] for row in _rows(part / "treesMetadata")}
        for tree, nodes in _by_tree(part).items():
            values[len(trees)] = index, weights[tree]
            trees[len(trees)] = nodes

    def adds(tree: int, node: Mapping[str, Any]) -> np.ndarray:
        row = np.zeros(len(parts))
        place, weight = values[tree]
        row[place] = weight * node["prediction"]
        return row

    return _joined(trees, adds, shares=False)


def _by_tree(folder: Path) -> dict[int, list[dict[str, Any]]]:
    trees: dict[int, list[dict[str, Any]]] = {}
    for row in _rows(folder / "data"):
        trees.setdefault(row["treeID"], []).append(row["nodeData"])
    return trees


def _votes(_: int, node: Mapping[str, Any]) -> np.ndarray:
    counts = np.asarray(node["impurityStats"], np.float64)
    return counts / counts.sum() if counts.any() else counts


def _joined(
    trees: Mapping[int, Sequence[Mapping[str, Any]]],
    value: Callable[[int, Mapping[str, Any]], np.ndarray],
    *,
    shares: bool,
) -> TreesHead:
    """Put the nodes of all trees in a row; a tree's first node is its root."""
    roots, feature, threshold, left, right, values = [], [], [], [], [], []
    start = 0
    for number in sorted(trees):
        nodes = sorted(trees[number], key=lambda node: int(node["id"]))
        roots.append(start)
        for node in nodes:
            split = node["split"]
            inner = node["leftChild"] >= 0
            feature.append(split["featureIndex"] if inner else -1)
            threshold.append(split["leftCategoriesOrThreshold"][0] if inner else 0.0)
            left.append(start + node["leftChild"] if inner else -1)
            right.append(start + node["rightChild"] if inner else -1)
            values.append(value(number, node))
        start += len(nodes)
    return TreesHead(
        np.array(feature), np.array(threshold, np.float64), np.array(left), np.array(right),
        np.stack(values), np.array(roots), np.array(shares),
    )  # fmt: skip


_READERS: Mapping[str, Callable[[Path], Head]] = {
    "DecisionTree": _tree,
    "RandomForest": _forest,
    "NaiveBayes": _naive_bayes,
    "MultilayerPerceptron": _perceptron,
}
_ONE_VS_REST: Mapping[str, Callable[[Sequence[Path]], Head]] = {
    "LinearSVC": _margins,
    "GBT": _boosted,
    "FM": _factorization,
}
