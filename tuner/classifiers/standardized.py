"""The rows that fits are made on, with what standardises them; read a block at a time.

Features stay as they are stored, usually float32 and memory-mapped. A block of rows is widened to float64
and used for all that is done with it while the processor's cache holds it: as fast as a float64 table, and
without one in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_BYTES = 4 << 20  # measured: from 1 to 8 MiB make no difference, less and more are slower


class Standardized:
    """Rows with the mean and the deviation of each feature. Made once, it serves any number of fits.

    Parameters
    ----------
    features
        Floats of shape (n, width), n at least 1; kept, not copied.
    weights
        MLlib's `weightCol`: floats above 0 of shape (n,). A row of weight 0 is one to leave out.

    Attributes
    ----------
    mean, std
        float64 of shape (width,): weighted mean and sample deviation. That of a feature which is the same
        in all rows is 0 exactly. (MLlib's may be 1e-17 if rows are weighted, and the feature's coefficient
        then anything, which the intercepts make up for.)
    total
        The sum of the weights; without weights n.

    Raises
    ------
    ValueError
        There are no rows, a feature is not finite, or weights do not fit.
    """

    def __init__(self, features: np.ndarray, weights: np.ndarray | None = None) -> None:
        if features.ndim != 2 or not features.size:
            raise ValueError(
                f"Features of shape {features.shape} are no rows of one width: give one at least."
            )
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float64)
            if weights.shape != (len(features),) or not (np.isfinite(weights) & (weights > 0)).all():
                raise ValueError(
                    "Weights are finite numbers above 0, one a row: leave out rows of weight 0."
                )
        self.features = features
        self.weights = weights
        self.total = float(len(features) if weights is None else weights.sum())
        with np.errstate(invalid="ignore", over="ignore"):
            self.mean, self.std = self._moments()
        if not np.isfinite(self.std).all():
            raise ValueError(
                "A feature is not a finite number: leave out the rows that have such features."
            )

    @property
    def nbytes(self) -> int:
        """Bytes that it holds; those of a memory-mapped file are the page cache's."""
        arrays = [self.features, self.mean, self.std] + ([] if self.weights is None else [self.weights])
        return sum(array.nbytes for array in arrays)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation, put together from those of the blocks (Chan, Golub & LeVeque 1983).

        Measured from the first row: so a constant feature has no deviation, not even one of rounding.
        """
        origin = self.features[0].astype(np.float64)
        mean, scatter, total = np.zeros_like(origin), np.zeros_like(origin), 0.0
        for rows, block in Blocks(self.features):
            weights = np.ones(len(block)) if self.weights is None else self.weights[rows]
            weight = weights.sum()
            block -= origin  # these blocks are read once
            block_mean = weights @ block / weight
            block -= block_mean
            shift = block_mean - mean
            scatter += weights @ np.square(block, out=block)
            scatter += shift**2 * (total * weight / (total + weight))
            mean += shift * (weight / (total + weight))
            total += weight
        squares = self.total if self.weights is None else self.weights @ self.weights
        freedom = self.total - squares / self.total
        return origin + mean, np.sqrt(scatter / freedom) if freedom > 0 else np.zeros_like(scatter)


class Blocks:
    """Rows as float64, a block at a time, gone when the next comes; what is read again is not written to.

    Parameters
    ----------
    features
        Floats of shape (n, width).
    beside
        float64 numbers that the work on a row takes besides: they too are to fit into the cache.
    """

    def __init__(self, features: np.ndarray, beside: int = 0) -> None:
        self._features = features
        rows, width = features.shape
        self._size = max(1, min(rows, _BLOCK_BYTES // (8 * (width + beside))))
        self._buffer = np.empty((self._size, width))
        self._only_one = rows == self._size
        if self._only_one:
            np.copyto(self._buffer, features)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(self._features), self._size):
            rows = slice(start, min(start + self._size, len(self._features)))
            block = self._buffer[: rows.stop - start]
            if not self._only_one:
                np.copyto(block, self._features[rows])
            yield rows, block
