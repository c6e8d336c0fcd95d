"""The JSON Schema of experiment files, for editors: made of the models that read the files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from tuner.experiment.schema import Experiment

_READ = ("function-before", "function-after")  # by functions of ours, before or after pydantic
_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}


class _Written(GenerateJsonSchema):
    """What a file may hold, where the models say what they make of it.

    A field that a function of ours reads before pydantic does may be text in a file, and so may its items:
    `backbone` is `VGG16,ResNet50`. One that is written as text (a range, a ratio) is text, a number or, of
    a parameter's values, a list of these, and never what it is in memory.
    """

    def generate(
        self, schema: core_schema.CoreSchema, mode: JsonSchemaMode = "validation"
    ) -> JsonSchemaValue:
        made = super().generate(schema, mode)
        return {"$schema": self.schema_dialect, **made}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """No titles, which would repeat the keys."""
        return False

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """What a function reads: as its validator states it, else text and what it leaves to pydantic."""
        if "json_schema_input_schema" in schema:
            return super().function_before_schema(schema)
        inner = schema["schema"]
        if inner["type"] == "model-fields":
            return self.generate_inner(inner)
        if not _is_written_as_text(schema):
            return _read_from_text(self.generate_inner(inner))
        scalar = [_TEXT, _NUMBER]
        # Of a ratio there is one; a parameter may have a list of values.
        lists = [{"type": "array", "items": _any_of(scalar)}] if inner["type"] != "fraction" else []
        return _any_of([*scalar, *lists])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A group of keys; one that a function reads first may have keys that only the function knows."""
        made = super().model_schema(schema)
        inner: Any = schema["schema"]
        while inner["type"] == "function-after":
            inner = inner["schema"]
        return {**made, "additionalProperties": True} if inner["type"] == "function-before" else made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Add the default as it is written; none of a group, whose keys have their own."""
        made = super().default_schema(schema)
        if _is_written_as_text(schema["schema"]) and "default" in schema:
            made["default"] = str(schema["default"])
        if made.get("default", "") is None or isinstance(made.get("default"), dict):
            del made["default"]
        return made


def _is_written_as_text(schema: Any) -> bool:
    """Whether a value is text once it is written, by this schema's serializer or that of one inside."""
    written = schema.get("serialization", {})
    inner = schema.get("schema")
    return (
        written.get("type") == "function-plain" and written.get("return_schema") == {"type": "str"}
    ) or (schema["type"] in _READ and inner is not None and _is_written_as_text(inner))


def _read_from_text(made: JsonSchemaValue) -> JsonSchemaValue:
    """What may be written for a value that a function reads: text, too, or one item for a list of them."""
    found: list[JsonSchemaValue] = []
    for option in made.get("anyOf", [made]):
        if "prefixItems" in option:  # two numbers; one stands for both
            found += [option["prefixItems"][0], option]
        elif "items" in option:
            item = _any_of([option["items"], _TEXT])
            found += [item, {**option, "items": item}]
        else:
            is_text = option.get("type") in ("string", "null") and "enum" not in option
            found += [option] if is_text else [option, _TEXT]
    return _any_of(found)


def _any_of(schemas: list[JsonSchemaValue]) -> JsonSchemaValue:
    """One schema for several, which may be such themselves: each once, and any text once for all."""
    flat = [option for schema in schemas for option in schema.get("anyOf", [schema])]
    if _TEXT in flat:
        flat = [
            option
            for option in flat
            if option == _TEXT or option.get("type") != "string" or "enum" in option
        ]
    once = [option for place, option in enumerate(flat) if option not in flat[:place]]
    return {"anyOf": [dict(option) for option in once]} if len(once) > 1 else dict(once[0])


@lru_cache(maxsize=1)
def written_meanings() -> dict[str, str]:
    """What each key of an experiment file means, in Markdown, by its place: ``search.backbone``.

    The keys of a network's description are called ``network.name`` and so on.
    """
    text = files("tuner.experiment").joinpath("keys.csv").read_text(encoding="utf-8")
    return dict(csv.reader(text.splitlines()))


def meanings() -> dict[str, str]:
    """The same as plain text."""
    return {key: meaning.replace("`", "") for key, meaning in written_meanings().items()}


def _describe(schema: dict[str, Any]) -> None:
    """Put the meanings of keys into a schema, in place of docstrings, which are for who writes Python."""
    schema.pop("description", None)
    for definition in schema["$defs"].values():
        definition.pop("description", None)
    for place, meaning in meanings().items():
        *groups, key = place.split(".")
        if groups == ["network"]:
            fields = schema["$defs"]["NetworkSpec"]["properties"]
        else:
            fields = fields_of(schema, groups)
        if key in fields:
            fields[key]["description"] = meaning


def fields_of(schema: dict[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """The keys of a group within groups, from the outermost; no groups: those of the file itself."""
    holder = schema
    for group in groups:
        holder = schema["$defs"][holder["properties"][group]["$ref"].rpartition("/")[2]]
    fields: dict[str, Any] = holder["properties"]
    return fields


def written_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of what a file may hold for a model to read it."""
    return model.model_json_schema(schema_generator=_Written)


def experiment_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an experiment file.

    It lets through all that `read_experiment` takes; what two keys have to do with each other, and what
    stands inside of text, only that can tell.
    """
    made = written_schema(Experiment)
    _describe(made)
    return {**made, "title": "An experiment of tuner"}


def schema_text() -> str:
    """The schema as the text of a file."""
    return json.dumps(experiment_schema(), indent=2, ensure_ascii=False) + "\n"
