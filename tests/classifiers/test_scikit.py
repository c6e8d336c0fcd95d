import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tuner.base.errors import ModelError, TrialError
from tuner.classifiers.heads.files import read_head
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import PRESTEPS
from tuner.classifiers.scikit import SklearnHead, fit_sklearn, make_pipeline
from tuner.classifiers.table import CLASSIFIERS, SPOTS

SPOTS_OF_SKLEARN = {spot: of for spot, of in SPOTS.items() if CLASSIFIERS[of[0]].library == "sklearn"}
RNG = np.random.default_rng(0)
LABEL = np.arange(90) % 3
FEATURES = (RNG.normal(size=(90, 20)) + 2 * np.eye(3, 20)[LABEL]).astype(np.float32)


def fitted(params: TrialParams, rows: slice = slice(None), classes: int = 3) -> SklearnHead:
    return fit_sklearn(params, FEATURES[rows], LABEL[rows], None, classes=classes, seed=7).head


@pytest.mark.parametrize("spot", SPOTS_OF_SKLEARN)
def test_all_of_them_are_kept_and_read_back_without_pickle(spot: str, tmp_path: Path) -> None:
    name, values = SPOTS_OF_SKLEARN[spot]
    small = dict(values) | ({"n_estimators": 5} if "n_estimators" in values else {})
    if name == "sklearn.HistGradientBoosting":
        small = {"max_iter": 3}
    head = fitted(TrialParams.of("any", name, **small))
    assert head.gives == CLASSIFIERS[name].gives
    scores = head.score(FEATURES)
    assert scores.shape == (90, 3)
    assert (scores.argmax(axis=1) == head.pipeline.predict(FEATURES.astype(np.float64))).all()
    if head.gives == "probability":
        np.testing.assert_allclose(scores.sum(axis=1), 1)
    head.write(tmp_path)
    with zipfile.ZipFile(tmp_path / "head.skops") as archive:
        assert {Path(file).suffix for file in archive.namelist()} <= {".json", ".npy", ".npz"}
    np.testing.assert_array_equal(read_head(tmp_path, "sklearn").score(FEATURES), scores)


@pytest.mark.parametrize("prestep", PRESTEPS)
@pytest.mark.parametrize("name", ["sklearn.KNeighbors", "sklearn.Ridge"])
def test_a_step_before_is_part_of_what_is_kept(prestep: str, name: str, tmp_path: Path) -> None:
    """Neighbours in few dimensions are found by a tree."""
    components = {"k": 5} if prestep == "PCA" else {}
    head = fitted(TrialParams.of("any", name, prestep=prestep, **components))
    step = head.pipeline.named_steps["prestep"]
    assert (step == "passthrough") if prestep == "none" else type(step).__name__ == prestep
    head.write(tmp_path)
    np.testing.assert_array_equal(SklearnHead.read(tmp_path).score(FEATURES), head.score(FEATURES))


@pytest.mark.parametrize(
    "name", ["sklearn.ExtraTree", "sklearn.SGD", "sklearn.AdaBoost", "sklearn.LinearSVC"]
)
def test_the_seed_decides_what_chance_has_a_part_in(name: str) -> None:
    params = TrialParams.of("any", name)
    first, same = (fitted(params).score(FEATURES) for _ in range(2))
    np.testing.assert_array_equal(first, same)
    assert make_pipeline(params, 7).named_steps["classifier"].random_state == 7


@pytest.mark.parametrize("name", ["sklearn.KNeighbors", "sklearn.Ridge"])
def test_a_class_without_images_is_never_the_answer(name: str) -> None:
    head = fitted(TrialParams.of("any", name), classes=5)
    scores = head.score(FEATURES)
    assert scores.shape == (90, 5)
    assert np.isfinite(scores).all()
    assert scores.argmax(axis=1).max() == 2


def test_of_two_classes_the_second_s_decision_value_is_turned_round_for_the_first() -> None:
    two = LABEL < 2
    params = TrialParams.of("any", "sklearn.Ridge")
    head = fit_sklearn(params, FEATURES[two], LABEL[two], None, classes=2, seed=0).head
    scores = head.score(FEATURES)
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])
    assert (scores.argmax(axis=1) == head.pipeline.predict(FEATURES.astype(np.float64))).all()


@pytest.mark.parametrize(
    "row",
    [r for r in CLASSIFIERS.values() if r.library == "sklearn" and not r.of_counts],
    ids=lambda r: r.name,
)
def test_rows_have_weights_where_the_table_says_so(row) -> None:
    weights = np.where(LABEL == 0, 50.0, 1.0)
    few = {name: 3 for name in ("n_estimators", "max_iter") if name in row.by_name}
    params = TrialParams.of("any", row.name, **few)

    def fit(given):
        return fit_sklearn(params, FEATURES, LABEL, given, classes=3, seed=0).head.score(FEATURES)

    if not row.weighted:
        with pytest.raises((TrialError, TypeError)):
            fit(weights)
        return
    assert (fit(weights).argmax(axis=1) == 0).sum() >= (fit(None).argmax(axis=1) == 0).sum()


def test_what_scikit_learn_refuses_is_a_trial_that_failed() -> None:
    params = TrialParams.of("any", "sklearn.LinearSVC")
    with pytest.raises(TrialError, match="scikit-learn's linear support vector machine cannot be fitted: "):
        fit_sklearn(params, FEATURES[:3], np.zeros(3, int), None, classes=3, seed=0)


def test_what_scikit_learn_warns_of_is_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSIFIERS["sklearn.LogisticRegression"].fixed, "max_iter", 1)  # type: ignore[arg-type]
    params = TrialParams.of("any", "sklearn.LogisticRegression", C=100)
    found = fit_sklearn(params, FEATURES, LABEL, None, classes=3, seed=0)
    assert len([text for text in found.warnings if "converge" in text]) == 1


# What must not be read


def test_a_type_that_is_not_trusted_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    step = FunctionTransformer(np.save)  # a function, which is named by where it is imported from
    pipeline = Pipeline(
        [("prestep", step), ("classifier", fitted(TrialParams.of("a", "sklearn.Ridge")).pipeline)]
    )
    SklearnHead(pipeline, 3).write(tmp_path)
    assert skops.io.get_untrusted_types(file=tmp_path / "head.skops")
    with pytest.raises(ModelError, match=r"has objects of the type numpy\.\S+, which tuner does not trust"):
        read_head(tmp_path, "sklearn")


@pytest.mark.parametrize("damage", ["cut", "pickle", "schema", "empty"])
def test_a_damaged_file_is_a_sentence(damage: str, tmp_path: Path) -> None:
    head = fitted(TrialParams.of("any", "sklearn.DecisionTree"))
    head.write(tmp_path)
    file = tmp_path / "head.skops"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "pickle":
        file.write_bytes(pickle.dumps(head.pipeline))
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("schema.json", json.dumps({"__class__": "dict"}))
    with pytest.raises(ModelError, match=r"cannot be read by scikit-learn and skops|does not trust"):
        read_head(tmp_path, "sklearn")
    with pytest.raises(ModelError, match="of the kind forest"):
        read_head(tmp_path, "forest")
