"""Converts pydantic's errors to mistakes: the problem, and a remedy that names the closest key or value."""

import difflib
from collections.abc import Hashable, Iterator, Mapping
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel

from configs.paths import models_in
from configs.tasks import DEFAULT, TASKS, Tree, tree_of
from configs.yaml_positions import Document, Key, dotted
from pipelines.errors import Mistake
from pipelines.wording import without_secrets

Error = Mapping[str, Any]  # as pydantic describes one
Complaint = tuple[Key, Error]  # with the key in the file

DATE, MAPPING, WHOLE = "a date such as 2020-06-30", "a mapping of `key: value`", "a whole number"
EXPECTED = {  # pydantic's type of error -> what was expected
    "union_tag_not_found": "a mapping with `kind:`",
    "string_pattern_mismatch": "a name of letters, digits, `_`, `-` and `.`",
    "string_too_long": "at most {max_length} characters",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "finite_number": "a finite number",
    "string_type": "text",
    "invalid_key": "text as a key",
    "list_type": "a list",
    "tuple_type": "a list of numbers",
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), WHOLE),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), MAPPING),
    **dict.fromkeys(("datetime_parsing", "datetime_from_date_parsing", "datetime_type"), DATE),
}


def explain_all(document: Document, errors: list[Complaint]) -> list[Mistake]:
    """One mistake per key with errors; a missing key that is explained by a typo is not listed again."""
    by_key: dict[Key, list[Error]] = {}
    for key, error in errors:
        by_key.setdefault(key, []).append(error)
    tree = tree_of(document.data) or TASKS[DEFAULT]
    typos = find_typos(tree, errors)
    mistakes = []
    for key, group in by_key.items():
        if key in typos.values() and all(error["type"] == "missing" for error in group):
            continue  # the mistake of the typo covers it
        if any(error["type"] == "extra_forbidden" for error in group):
            mistakes.append(_explain_unknown(tree, document, key))
        else:
            mistakes.append(_explain_value(tree, document, key, group))
    return mistakes


def find_typos(tree: Tree, errors: list[Complaint]) -> dict[Key, Key]:
    """Unknown key -> the known key of the same mapping that was probably intended."""
    typos: dict[Key, Key] = {}
    for key, error in errors:
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(key[-1]), _known_keys(tree, key[:-1]), n=1, cutoff=0.6)
            if near:
                typos[key] = (*key[:-1], near[0])
    return typos


def _explain_unknown(tree: Tree, document: Document, key: Key) -> Mistake:
    known = _known_keys(tree, key[:-1], document.data)
    near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.6)
    remedy = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(known)}"
    others = [path for path in _section_paths(tree) if path != key[:-1]]  # a key of another kind
    elsewhere = [dotted((*path, key[-1])) for path in others if key[-1] in _known_keys(tree, path)]
    if not near and elsewhere:
        remedy = f"it belongs to {elsewhere[0]}"
    return Mistake(document.position_of_key(key), dotted(key), "unknown key", remedy)


def _explain_value(tree: Tree, document: Document, key: Key, group: list[Error]) -> Mistake:
    if group[0]["type"] == "missing":
        models = [model for model in _models_at(tree, key[:-1]) if key[-1] in model.model_fields]
        remedy = (models and models[0].model_fields[str(key[-1])].description) or "add it"
        return Mistake(document.position_of_key(key[:-1]), dotted(key), "is required and missing", remedy)
    requested = list(dict.fromkeys(_expectation(error) for error in group))
    value = group[0].get("input")
    problem = f"expected {' or '.join(requested)}, found {_shown(value)}"
    return Mistake(document.position_of_value(key), dotted(key), problem, _value_remedy(group, value))


def _allowed(error: Error) -> str:
    context = error.get("ctx", {})
    return str(context.get("expected") or context.get("expected_tags") or "")


def _expectation(error: Error) -> str:
    context, kind = error.get("ctx", {}), error["type"]
    if kind in ("literal_error", "union_tag_invalid"):
        return f"one of {_allowed(error)}"
    if kind == "value_error":
        return str(context["error"])
    return EXPECTED[kind].format(**context) if kind in EXPECTED else str(error["msg"])


def _value_remedy(group: list[Error], value: object) -> str:
    for error in group:
        options = [word.strip(" '") for word in _allowed(error).replace(" or ", ",").split(",")]
        written = str(error.get("ctx", {}).get("tag", "") if isinstance(value, dict) else value)
        near = difflib.get_close_matches(written, filter(None, options), n=1)
        if near:
            return f"did you mean {near[0]!r}?"
        if error["type"] == "string_type" and isinstance(value, bool | int | float):
            return 'YAML reads it as another type; put it in quotes: "..."'
    return ""


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"kind {value['kind']!r}" if "kind" in value else "a mapping"
    if value is None:
        return "nothing"
    text = value.isoformat() if isinstance(value, date) else without_secrets(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------- schema lookups


def find_lax_numbers(tree: Tree, data: Any) -> list[Complaint]:
    """Values that pydantic would turn into a number: true, "3". YAML reads 1e-3 as text, so a real number may be text."""
    complaints: list[Complaint] = []
    for key, value in _leaves(data):
        path = key if isinstance(key[-1], str) else key[:-1]  # an entry of a list
        fields = [model.model_fields.get(str(path[-1])) for model in _models_at(tree, path[:-1], data)]
        types = set[object]().union(*(_types_in(field.annotation) for field in fields if field))
        is_wrong = isinstance(value, bool) or (isinstance(value, str) and float not in types and value not in types)
        if is_wrong and types & {int, float} and not types & {bool, str}:
            expected = "a number" if float in types else WHOLE
            complaints.append((key, {"type": "value_error", "ctx": {"error": expected}, "input": value}))
    return complaints


def _leaves(data: Any, key: Key = ()) -> Iterator[tuple[Key, object]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if entries is None:
        yield key, data
    else:
        for name, value in entries:
            yield from _leaves(value, (*key, name))


def _types_in(annotation: object) -> set[object]:
    return {annotation}.union(*map(_types_in, get_args(annotation))) if isinstance(annotation, Hashable) else set()


def _models_at(tree: Tree, path: Key, data: object = None) -> list[type[BaseModel]]:
    """The config classes that are valid at `path`; if `data` names a kind, only that one."""
    models: list[type[BaseModel]] = [tree]
    for part in path:
        if isinstance(data, dict):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        if isinstance(part, int):
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [model for field in fields for model in models_in(field.annotation)]
        kind = data.get("kind") if isinstance(data, dict) else None
        chosen = [m for m in models if "kind" in m.model_fields and get_args(m.model_fields["kind"].annotation) == (kind,)]
        models = chosen or models
    return models


def _known_keys(tree: Tree, path: Key, data: object = None) -> list[str]:
    return list(dict.fromkeys(name for model in _models_at(tree, path, data) for name in model.model_fields))


def _section_paths(tree: Tree) -> tuple[Key, ...]:
    """Sections in which a misplaced key may be valid: the top level, every section, and their sections."""
    sections: list[Key] = [(name,) for name in tree.model_fields]
    below = [(*path, key) for path in sections for key in _known_keys(tree, path) if _models_at(tree, (*path, key))]
    return ((), *sections, *below)
