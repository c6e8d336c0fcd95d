"""Experiment files (YAML 1.2) and the options that override them → a checked experiment, or a sentence."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tuner.base.errors import ExperimentError
from tuner.base.uris import expanded
from tuner.classifiers.parameters import PARAMETERS
from tuner.classifiers.space import shown
from tuner.experiment.schema import Experiment, Registry

# The options of the command line, by their place in the file.
OVERRIDES: Mapping[str, tuple[str, ...]] = {
    "images": ("images",),
    "cache": ("cache",),
    "precision": ("precision",),
    "validation": ("split", "validation"),
    "backbone": ("search", "backbone"),
    **{
        name: ("search", name)
        for name in (
            "classifier",
            *PARAMETERS,
            "max_evals",
            "parallelism",
            "timeout",
            "trial_timeout",
            "early_stop",
            "seed",
            "algorithm",
            "metric",
            "select",
            "deterministic",
            "class_weight",
            "fit",
        )
    },
}
# Those of `tuner learn`.
LEARN_OVERRIDES: Mapping[str, tuple[str, ...]] = {
    **{name: OVERRIDES[name] for name in ("images", "cache", "precision", "validation")},
    **{
        name: ("learn", name)
        for name in ("backbone", "classifier", "batch", "epochs", "step", "seed", "metric")
    },
}
# Those of `tuner fine-tune`.
FINE_TUNE_OVERRIDES: Mapping[str, tuple[str, ...]] = {
    **{name: OVERRIDES[name] for name in ("images", "cache", "validation")},
    **{
        name: ("fine_tune", name)
        for name in (
            "base",
            "augment",
            "unfreeze",
            "warm_up_epochs",
            "epochs",
            "warm_up_learning_rate",
            "learning_rate",
            "batch_size",
            "early_stop",
            "max_evals",
            "parallelism",
            "seed",
            "metric",
            "precision",
        )
    },
}


def _override(
    data: dict[str, Any], overrides: Mapping[str, object], places: Mapping[str, tuple[str, ...]]
) -> None:
    for option, value in overrides.items():
        if value is None or (isinstance(value, str) and not value):  # empty means: as in the file
            continue
        *groups, key = places[option]
        place = data
        for group in groups:
            place = place.setdefault(group, {})
        described = option in ("backbone", "classifier")
        place[key] = _keep_described(value, place.get(key)) if described else value


def _keep_described(given: object, listed: object) -> object:
    """Names given as an option keep what the file says of the networks or classifiers of those names."""
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, list):
        return given

    described = {
        item["name"]: item
        for item in (listed if isinstance(listed, list) else [listed])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    }
    stripped = [name.strip() if isinstance(name, str) else name for name in names]
    return [described.get(name, name) if isinstance(name, str) else name for name in stripped]


_PROBLEMS = 5  # as many are told at once


def _sentence(error: ValidationError, where: str) -> str:
    problems = []
    for detail in error.errors():
        place = ".".join(map(_key, detail["loc"]))
        match detail["type"]:
            case "extra_forbidden":
                problems.append(f"the key {place} is unknown")
            case "missing":
                problems.append(f"the key {place} is missing")
            case "value_error":
                text = str(detail["ctx"]["error"])
                problems.append(f"{place}: {text}" if place else text)
            case _ if detail["input"] is None:
                problems.append(
                    f"the key {place} has no value (null and ~ are none, too): give it one, text in quotes"
                )
            case "string_type" if isinstance(detail["input"], int | float | date):
                read = detail["input"]
                written = read if isinstance(read, date) else shown(read)
                problems.append(f"{place} is read as {written}: put it in quotes, as text")
            case _:
                said = detail["msg"][:1].lower() + detail["msg"][1:]  # names keep their case
                problems.append(f"{place} is {shown(detail['input'])}: {said}")
    more = [f"and {len(problems) - _PROBLEMS} more"] if len(problems) > _PROBLEMS else []
    said = f"{where}: {'; '.join(problems[:_PROBLEMS] + more)}"
    return said if said.endswith("?") else f"{said}."


def _key(part: object) -> str:
    """A key as it is written, unless that would break the sentence."""
    text = str(part)
    return text if text.isprintable() and len(text) < 80 else shown(text)


def read_experiment(
    path: Path,
    overrides: Mapping[str, object] | None = None,
    places: Mapping[str, tuple[str, ...]] = OVERRIDES,
) -> Experiment:
    """Read an experiment file and apply the options given for this search.

    Parameters
    ----------
    path
        A YAML 1.2 file (so `1e-4` is a number and `5:30` is not one).
    overrides
        Options by their names in `places`, as text or as the file has them; None and "" mean: as in the
        file.
    places
        Where each option stands in the file.

    Returns
    -------
    Experiment
        Frozen; what neither says has its default.

    Raises
    ------
    ExperimentError
        The file is missing, is not YAML, or says something that cannot work; one sentence.
    """
    try:
        path = expanded(path)
    except ValueError as error:
        raise ExperimentError(f"There is no experiment file {path}: {error}.") from None
    return experiment_of(read_yaml(path), str(path), overrides, places)


def registry_of(name: str, alias: str, stage: str) -> Registry:
    """Where a model goes, checked; raises `ExperimentError`."""
    try:
        return Registry.model_validate({"name": name, "alias": alias, "stage": stage})
    except ValidationError as error:
        raise ExperimentError(_sentence(error, "The model cannot be registered so")) from None


def yaml_text(data: Any) -> str:
    """Plain data as YAML 1.2, which `read_yaml` gives back equal.

    MLflow writes YAML 1.1, where `1e4` and `0o17` are text that need no quotes; to whoever reads 1.2 they
    are numbers.
    """
    yaml, text = _yaml(), io.StringIO()
    yaml.dump(data, text)
    if "\x85" in text.getvalue():  # a line break to YAML 1.1, and the library's writer is in doubt
        yaml, text = _yaml(), io.StringIO()
        yaml.allow_unicode = False
        yaml.dump(data, text)
    return text.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10**6  # one line for one value
    return yaml


def parse_yaml(text: str) -> Any:
    """The plain data of YAML 1.2; errors are the library's, and ValueError."""
    return _yaml().load(text)


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML 1.2 file; errors as `read_experiment`."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"There is no experiment file {path}: check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"The experiment file {path} cannot be read: {error}.") from error
    except (YAMLError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        reason = " ".join(str(error).split())
        raise ExperimentError(f"The experiment file {path} is not valid YAML: {reason}.") from error


def experiment_of(
    data: Any,
    where: str,
    overrides: Mapping[str, object] | None = None,
    places: Mapping[str, tuple[str, ...]] = OVERRIDES,
) -> Experiment:
    """An experiment from plain data; `where` begins the sentence of an error, as of `read_experiment`."""
    if not isinstance(data, dict):
        raise ExperimentError(f"{where} must hold keys and values, such as name:.")
    for group in ("split", "search", "spot_check", "learn", "fine_tune", "registry", "gate"):
        if data.get(group) is None:
            data.pop(group, None)
        elif not isinstance(data[group], dict):
            raise ExperimentError(f"{where}: {group} must hold keys and values.")
    _override(data, overrides or {}, places)
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(_sentence(error, where)) from None
