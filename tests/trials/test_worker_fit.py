import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest

from tuner.base.errors import TrialError
from tuner.classifiers.heads.steps import fit_step, step_and_head
from tuner.classifiers.parameters import TrialParams
from tuner.preparation.matrices import FeatureMatrices
from tuner.trials import worker_fit
from tuner.trials.worker_fit import WorkerFits, given_up_after

FOLDS, ROWS, WIDTH = 5, 2000, 256  # of float32: a fold's copy of the others is 1.6 MB
COPY_BYTES = (FOLDS - 1) * ROWS // FOLDS * WIDTH * 4


@pytest.fixture
def matrices(tmp_path: Path) -> FeatureMatrices:
    """Features of two networks, in folds, of ten classes that lie close together."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, ROWS)
    part = np.repeat([f"fold-{number}" for number in range(FOLDS)], ROWS // FOLDS)
    rows = pd.DataFrame({"path": np.arange(ROWS).astype(str), "label_index": label, "part": part})
    rows.to_parquet(tmp_path / "rows.parquet")
    files = {}
    for number, network in enumerate(("one", "two")):
        values = rng.normal(0.3 * np.eye(10, WIDTH)[label], 1).astype(np.float32)
        files[network] = f"{number}-{network}.npy"
        np.save(tmp_path / files[network], values)
    return FeatureMatrices(tmp_path, files, ROWS * WIDTH * 4)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> worker_fit._Kept:
    """What this process keeps, which is nothing yet."""
    kept = worker_fit._Kept()
    monkeypatch.setattr(worker_fit, "_KEPT", kept)
    return kept


def fits_of(matrices: FeatureMatrices, network: str = "one", max_iter: int = 3) -> WorkerFits:
    params = TrialParams.of(network, regParam=0.01, elasticNetParam=0.5, maxIter=max_iter)
    return WorkerFits(matrices, params, classes=10, class_weight="none", threads=1, at_once=2)


def allow(copies: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a worker keep so many folds' copies, in bytes: two share an eighth of the memory."""
    mib = int(copies * COPY_BYTES * 2 * 8 / 2**20)
    monkeypatch.setattr(worker_fit, "memory_mib", lambda: mib)
    return mib * 2**20 // 16


def copied(kept: worker_fit._Kept) -> list[int]:
    """The bytes of each table that is kept, without those that are mapped from the file."""
    tables = [training.rows.features for training in kept._tables.values()]
    return [0 if isinstance(features, np.memmap) else features.nbytes for features in tables]


@pytest.mark.parametrize("copies", [0.1, 1.5, 3.2])
def test_rows_that_are_kept_from_trial_to_trial_stay_within_the_budget(
    matrices: FeatureMatrices, kept: worker_fit._Kept, monkeypatch: pytest.MonkeyPatch, copies: float
) -> None:
    budget, most = allow(copies, monkeypatch), 0
    for network in ("one", "two", "one"):
        for fold in range(FOLDS):
            fits_of(matrices, network).fit_and_score(f"fold-{fold}")
            # The rows that a fit is made on have to be there, whatever there is room for.
            assert sum(copied(kept)) <= max(budget, COPY_BYTES)
            most = max(most, sum(copied(kept)))
        fits_of(matrices, network).fit_all()
    assert most == max(1, int(copies)) * COPY_BYTES
    assert 0 in copied(kept)  # all rows, mapped, take no memory of this process


def test_a_trial_finds_the_rows_that_an_earlier_one_prepared(
    matrices: FeatureMatrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(2.5, monkeypatch)
    first = [fits_of(matrices)._training(f"fold-{fold}") for fold in (1, 2)]
    again = [fits_of(matrices, max_iter=9)._training(f"fold-{fold}") for fold in (1, 2)]
    assert [one is other for one, other in zip(first, again, strict=True)] == [True, True]
    fits_of(matrices)._training("fold-3")  # pushes out the one that was used longest ago
    assert fits_of(matrices)._training("fold-2") is first[1]
    assert fits_of(matrices)._training("fold-1") is not first[0]


def test_rows_with_weights_are_others_than_rows_without(matrices: FeatureMatrices) -> None:
    plain = fits_of(matrices)
    weighted = WorkerFits(matrices, plain.params, 10, "balanced", threads=1, at_once=2)
    assert plain._training("fold-0").standardized.weights is None
    weights = weighted._training("fold-0").standardized.weights
    assert weights is not None
    assert len(weights) == ROWS - ROWS // FOLDS


def test_a_fit_scores_the_rows_that_it_did_not_see(matrices: FeatureMatrices) -> None:
    table = matrices.open("one")
    for fold in range(FOLDS):
        found = fits_of(matrices, max_iter=30).fit_and_score(f"fold-{fold}")
        unseen = table.part == f"fold-{fold}"
        assert found.scored.path == list(table.path[unseen])
        np.testing.assert_array_equal(found.scored.label_index, table.label_index[unseen])
        np.testing.assert_allclose(
            found.scored.scores, found.fitted().head.score(table.features[unseen]), atol=1e-12
        )
        right = (
            found.fitted().head.score(table.features[~unseen]).argmax(axis=1) == table.label_index[~unseen]
        )
        assert found.train_accuracy == right.mean()


@pytest.mark.parametrize("values", [{"prestep": "StandardScaler"}, {"prestep": "PCA", "k": 12}])
def test_a_step_is_fitted_on_the_rows_that_a_fit_sees(matrices: FeatureMatrices, values: dict) -> None:
    plain = fits_of(matrices)
    params = TrialParams.of("one", "LogisticRegression", **plain.params.values, **values)
    fits = WorkerFits(matrices, params, classes=10, class_weight="none", threads=1, at_once=2)
    found, table = fits.fit_and_score("fold-1"), matrices.open("one")
    step, _ = step_and_head(found.fitted().head)
    assert step is not None
    own = fit_step(params.prestep, table.all_but("fold-1").features, params.components)
    for name, numbers in own.numbers.items():
        # A component's sign may be the other, where the products of matrices have other threads.
        np.testing.assert_allclose(np.abs(step.numbers[name]), np.abs(numbers), atol=1e-9)
    unseen = table.only("fold-1").features
    np.testing.assert_allclose(found.scored.scores, found.fitted().head.score(unseen), atol=1e-12)
    assert fits._training("fold-1").copied_bytes > plain._training("fold-1").copied_bytes


# The time that a trial may take


@pytest.fixture
def alarm() -> Iterator[object]:
    """What this process does at an alarm, which must be what it did before."""
    before = signal.getsignal(signal.SIGALRM)
    yield before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def fit_again_and_again(fits: WorkerFits) -> NoReturn:
    """A fit converges some time."""
    while True:
        fits.fit_and_score("fold-1")


@pytest.mark.timeout(method="thread")
def test_a_fit_that_takes_too_long_is_given_up_in_a_sentence(
    matrices: FeatureMatrices, alarm: object
) -> None:
    fits = fits_of(matrices, max_iter=1_000_000)
    sentence = r"^The trial took longer than trial_timeout, 0\.05 s, and was ended\.$"
    with pytest.raises(TrialError, match=sentence), given_up_after(0.05, fits) as given:
        fit_again_and_again(given)
    assert len(fits_of(matrices).fit_and_score("fold-1").history) > 1  # the next trial of the process


@pytest.mark.timeout(method="thread")
def test_a_trial_that_ends_in_time_is_left_alone_and_so_is_the_next(
    matrices: FeatureMatrices, alarm: object
) -> None:
    for seconds in (0.2, None):
        with given_up_after(seconds, fits_of(matrices)):
            pass
    time.sleep(0.3)


def test_another_thread_than_the_main_one_cannot_be_interrupted_and_need_not_be(
    matrices: FeatureMatrices,
) -> None:
    ended = []

    def run() -> None:
        with given_up_after(1e-6, fits_of(matrices)) as fits:
            ended.append(fits.fit_and_score("fold-0"))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(ended) == 1
