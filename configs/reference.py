"""The config reference as Markdown, made from the schema: `python -m configs.reference > docs/config.md`."""

import types
import typing
from datetime import datetime
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from configs import schema

PLAIN_NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true / false",
    datetime: "date (ISO 8601, UTC)",
    type(None): "nothing",
}


def type_text(annotation: Any) -> str:
    """What a person may write for `annotation`: "number", "mae | mse", "list of text" ..."""
    if annotation in PLAIN_NAMES:
        return PLAIN_NAMES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " \\| ".join(type_text(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_text(argument) for argument in arguments)}]"
    if origin is dict:
        return f"{type_text(arguments[0])}: {type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    raise TypeError(f"the reference has no words for {annotation!r}")


def default_text(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if value is None:
        return ""
    return "see there" if isinstance(value, BaseModel) else f"`{value}`"


def section(model: type[BaseModel]) -> str:
    """One table of the reference: every key of `model` with what it takes, its default and its meaning."""
    own_words = model.__doc__ if model.__doc__ and model.__doc__ != schema.Strict.__doc__ else ""
    rows = [
        f"| `{name}` | {type_text(field.annotation)} | {default_text(field)} | {field.description or ''} |"
        for name, field in model.model_fields.items()
    ]
    lines = [
        f"## {model.__name__}",
        "",
        " ".join(own_words.split()),
        "",
        "| key | takes | default | meaning |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The whole reference, outermost section first."""
    found = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, schema.Strict)]
    sections: list[type[BaseModel]] = [schema.Run]
    sections += [model for model in found if model not in (schema.Strict, schema.SourceDefaults, schema.Run)]
    head = (
        "# The config, key by key\n\n"
        "Made by `python -m configs.reference`; do not edit. A run is one YAML file with the keys of [Run](#run).\n"
        "Unknown keys are mistakes. Relative paths are read from the folder in which the command runs.\n"
        "Ready-made runs lie in [configs/](../configs).\n\n"
    )
    return head + "\n".join(section(model) for model in sections)


if __name__ == "__main__":
    print(reference(), end="")
