"""The config reference as Markdown, made from the schema: `python -m configs.reference > docs/config.md`."""

import types
import typing
from datetime import datetime
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from configs import schema
from configs.renamed import RENAMED, Renamed
from configs.tasks import TASKS

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
    own_description = model.__doc__ if model.__doc__ and model.__doc__ != schema.Strict.__doc__ else ""
    rows = [
        f"| `{name}` | {type_text(field.annotation)} | {default_text(field)} | {field.description or ''} |"
        for name, field in model.model_fields.items()
    ]
    lines = [
        f"## {model.__name__}",
        "",
        " ".join(own_description.split()),
        "",
        "| key | takes | default | meaning |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def models_of(tree: type[BaseModel], seen: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """`tree` and the sections below it in the order of its keys, without those in `seen`."""
    found = [tree]
    for field in tree.model_fields.values():
        for model in _models_in(field.annotation):
            if model not in (*seen, *found):
                found += models_of(model, [*seen, *found])
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def reference() -> str:
    """The whole reference: for each task its outermost section first."""
    models: list[type[BaseModel]] = []
    for tree in TASKS.values():
        models += models_of(tree, models)
    tasks = ", ".join(f"[`task: {task}`](#{tree.__name__.lower()})" for task, tree in TASKS.items())
    head = (
        "# The config, key by key\n\n"
        "Made by `python -m configs.reference`; do not edit. A run is one YAML file; its `task` says which keys it has:\n"
        f"{tasks}.\n"
        "Unknown keys are mistakes. Ready-made runs lie in [configs/](../configs).\n\n"
        "Relative paths:\n\n"
        "| written in | of | relative to |\n"
        "|---|---|---|\n"
        "| a config | inputs: `source.path`, `monitoring.model.run` | the folder of the config |\n"
        "| a config | inputs whose first part is `data` or `runs` (`./data` is a folder beside the config) "
        "| the working folder, in which the command runs |\n"
        "| a config | what is written: `runs`, `cube.uri` | the working folder |\n"
        "| a config | `source.files`, `source.dates`, `labels.path` | `source.path` |\n"
        "| `--set` | every key but those below `source.path` | the working folder |\n\n"
        "For one more version, an input that is there only relative to the working folder is read from there, with a note.\n\n"
    )
    return head + "\n".join(section(model) for model in models) + "\n" + earlier_keys()


def earlier_keys() -> str:
    """The table of keys that are read for one more version."""
    rows = [f"| `{old}` | {', '.join(one.tasks)} | {_now(old, one)} | {one.reason} |" for old, one in RENAMED.items()]
    intro = "These are read for one more version, with a note to the user."
    return (
        "\n".join(["## Keys of earlier versions", "", intro, "", "| key | task | now | why |", "|---|---|---|---|", *rows]) + "\n"
    )


def _now(old: str, one: Renamed) -> str:
    """What takes the place of a key, or of a word in its value."""
    if one.text:
        return f"`{one.text[1]}` for `{one.text[0]}` in it"
    if one.values:
        return ", ".join(f"`{old}: {new}`" for new in one.values.values())
    return f"`{one.new}`" if one.new else "no effect"


if __name__ == "__main__":
    print(reference(), end="")
