"""What a call is given, images or an experiment and the values of keys, as a checked experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from tuner.base.errors import ExperimentError
from tuner.base.uris import local_path
from tuner.classifiers.space import shown
from tuner.experiment.file import FINE_TUNE_OVERRIDES, LEARN_OVERRIDES, OVERRIDES, experiment_of, read_yaml
from tuner.experiment.schema import Experiment

Source = str | os.PathLike[str] | Mapping[str, Any] | Experiment
"""Images as an experiment names them, an experiment file (``*.yaml``), or its content."""
Names = str | Sequence[str | Mapping[str, Any]]
"""Networks or classifiers: names, or descriptions as in an experiment file."""
Values = float | str | list[float] | list[str] | tuple[float, float] | tuple[float, float, str]
"""Of a parameter: one, a list of them, or a range."""

_ENDINGS = (".yaml", ".yml")
_SCALES = ("log", "linear")


def given_experiment(source: Source, *, name: str | None = None, **overrides: object) -> Experiment:
    """Make an experiment of what a call was given.

    Of a folder of images that says no more, split, weights of classes and networks are those that
    `tuner new` would write for it.

    Parameters
    ----------
    source
        Images or an experiment.
    name
        Of the experiment and its model; None: its own, or that of the folder or table of images.
    overrides
        Keys by their names in `tuner.experiment.file.OVERRIDES`; None: as in the experiment. A tuple is a
        range, a list is values.

    Raises
    ------
    ExperimentError
        What is given is no experiment that can work.
    ImageSourceError
        The folder has no images that a search can be made of.
    """
    return _given(source, name, overrides, OVERRIDES)


def given_learning(source: Source, *, name: str | None = None, **overrides: object) -> Experiment:
    """Make an experiment to learn from; as `given_experiment`, with the keys of `LEARN_OVERRIDES`.

    Of the networks that fit a folder of images, it is the first.
    """
    return _given(source, name, overrides, LEARN_OVERRIDES)


def given_tuning(source: Source, *, name: str | None = None, **overrides: object) -> Experiment:
    """Make an experiment to train on; as `given_experiment`, with the keys of `FINE_TUNE_OVERRIDES`."""
    if isinstance(source, Experiment) and overrides.get("base") is not None:
        # Another base has defaults of its own.
        said, data = source.fine_tune.model_fields_set, source.to_yaml_dict()
        source = data | {
            "fine_tune": {key: value for key, value in data["fine_tune"].items() if key in said}
        }
    return _given(source, name, overrides, FINE_TUNE_OVERRIDES)


def _given(
    source: Source,
    name: str | None,
    overrides: Mapping[str, object],
    places: Mapping[str, tuple[str, ...]],
) -> Experiment:
    values = {key: _plain(key, value) for key, value in overrides.items() if value is not None}
    if isinstance(source, Experiment) and name is None and not values:
        return source
    data, where = _data(source, places, fits="backbone" not in values)
    if name is not None:
        data["name"] = name
    return experiment_of(data, where, values, places)


def _data(
    source: Source, places: Mapping[str, tuple[str, ...]], *, fits: bool
) -> tuple[dict[str, Any], str]:
    """The content of an experiment, and what the sentence of an error begins with."""
    if isinstance(source, Experiment):
        return source.to_yaml_dict(), f"The experiment {source.name}"
    if isinstance(source, Mapping):
        return _with_ranges(source), "The experiment"
    text = os.fspath(source)
    if text.endswith(_ENDINGS) and not Path(text).is_dir():
        return read_yaml(Path(text)), text
    data = _of_images(text, fits=fits)
    if places is OVERRIDES:
        return data, f"The search of {text}"
    search = data.pop("search")  # nothing is searched, and one network is taken
    networks = search.pop("backbone", None)
    if places is LEARN_OVERRIDES:
        return data | {"learn": {"backbone": networks[0]} if networks else {}}, f"What is learned of {text}"
    base = {"base": networks[0]} if networks else {}
    return data | {"fine_tune": base | search}, f"The training on {text}"


def _of_images(images: str, *, fits: bool) -> dict[str, Any]:
    """The least that an experiment says of images; for a folder, what fits it."""
    from tuner.drafts.advice import advise  # they import pyspark
    from tuner.drafts.drafting import experiment_name
    from tuner.drafts.survey import holds_tables, survey

    kind, _, rest = images.partition(":")
    if kind in ("builtin", "table"):
        return {"name": experiment_name(Path(rest)), "images": images, "search": {}}
    place = local_path(images)
    if place is None:
        return {"name": experiment_name(Path(images.rstrip("/"))), "images": images, "search": {}}
    data = {"name": experiment_name(place.resolve()), "images": str(place.absolute()), "search": {}}
    if not place.is_dir() or holds_tables(place):  # what is missing, the reader says
        return data
    found = survey(images)
    advice = advise(found)
    search: dict[str, Any] = {"class_weight": "balanced"} if advice.balanced else {}
    if fits:
        search["backbone"] = list(advice.backbones)
    split = {"test": str(advice.test), "validation": advice.validation}
    return data | {"split": split | ({"given": found.given} if found.given else {}), "search": search}


def _with_ranges(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an experiment's content, whose tuples are ranges in a search and its classifiers."""
    data = deepcopy(dict(given))
    search = data.get("search")
    if isinstance(search, Mapping):
        search = {key: _plain(key, value) for key, value in search.items()}
        classifiers = search.get("classifier")
        if isinstance(classifiers, list):
            search["classifier"] = [
                {key: _plain(key, value) for key, value in one.items()} if isinstance(one, Mapping) else one
                for one in classifiers
            ]
        data["search"] = search
    return data


def _plain(key: str, value: object) -> object:
    """A value as an experiment file has it: paths are text, and a tuple is a range."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, tuple):
        return value
    low_and_high, scale = value[:2], value[2:]
    numbers = [end for end in low_and_high if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) != 2 or (scale and scale not in [(word,) for word in _SCALES]):
        raise ExperimentError(
            f"{key} is {shown(value)}, and a tuple is a range: give (low, high), (low, high, 'log') or "
            "(low, high, 'linear'), or a list for single values."
        )
    return ":".join([*map(repr, numbers), *scale])
