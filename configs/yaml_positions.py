"""Parses YAML with the file position of every key and value, and reports YAML errors with remedies."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipelines.errors import ConfigError, Mistake

Key = tuple[str | int, ...]

EXAMPLE = "see configs/demo.yaml for an example"
MAX_DEPTH = 12
MAX_NODES = 20_000  # aliases multiply: ten lines of them can expand to a billion values
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map", "merge")}


class PlainLoader(yaml.SafeLoader):
    """Safe types only; an invalid number or date (2021-13-01) stays text, so that the schema reports its line."""


def _number_or_text(tag: str) -> Callable[[yaml.SafeLoader, yaml.Node], Any]:
    construct = yaml.SafeLoader.yaml_constructors[tag]

    def constructor(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        try:
            is_sexagesimal = ":" in node.value and not tag.endswith("timestamp")  # 1:30 would be 90
            return node.value if is_sexagesimal else construct(loader, node)
        except ValueError:
            return node.value

    return constructor


PlainLoader.add_constructor(None, lambda loader, node: None)  # unknown tags are listed in the document's mistakes

for _kind in ("int", "float", "timestamp"):
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number_or_text(f"tag:yaml.org,2002:{_kind}"))


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and the position of each key and value."""

    name: str
    data: dict[str, Any]
    key_positions: dict[Key, str] = field(default_factory=dict)
    value_positions: dict[Key, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)  # what YAML allows and a config does not

    def position_of_key(self, key: Key) -> str:
        """`file:line` of `key`, or of the nearest mapping around it that exists in the file."""
        while key and key not in self.key_positions:
            key = key[:-1]
        return self.key_positions.get(key, f"{self.name}:1")

    def position_of_value(self, key: Key) -> str:
        return self.value_positions.get(key) or self.position_of_key(key)


def dotted(key: Key) -> str:
    return ".".join(str(part) for part in key) or "(whole file)"


def parent_of(data: Any, key: Key) -> Any:
    """The mapping or list that holds `key` in `data`; None if it is not there."""
    for part in key[:-1]:
        is_there = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        data = data[part] if is_there else None
    return data


def parse_yaml(text: str, name: str) -> Document:
    """The document in `text` (safe types only), with duplicate keys and tags as mistakes. Raises ConfigError if not a mapping."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        position = f"{name}:{mark.line + 1}" if mark else f"{name}:1"
        problem = "; ".join(part for part in (e.problem, e.context) if part) or "not valid YAML"
        raise ConfigError([Mistake(position, "YAML syntax", problem, _syntax_remedy(problem))]) from e
    except RecursionError as e:
        raise ConfigError([Mistake(f"{name}:1", "(whole file)", "nested too deeply", EXAMPLE)]) from e
    except yaml.YAMLError as e:
        remedy = "save the file as plain UTF-8 text"
        raise ConfigError([Mistake(f"{name}:1", "YAML syntax", str(e).replace("\n", " "), remedy)]) from e
    if root is None:
        remedy = "`driftline init FOLDER` writes one as a start"
        raise ConfigError([Mistake(f"{name}:1", "(whole file)", "the file is empty", remedy)])
    if not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        problem = f"expected `key: value` lines at the top level, found {found}"
        raise ConfigError([Mistake(_place(name, root), "(whole file)", problem, EXAMPLE)])
    document = Document(name, {})
    _note_positions(root, (), document)
    document.data.update(_construct(root, name))
    return document


def _construct(root: yaml.MappingNode, name: str) -> dict[str, Any]:
    loader = PlainLoader("")
    try:
        content: dict[str, Any] = loader.construct_document(root)
        return content
    except (yaml.MarkedYAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        problem = getattr(e, "problem", None) or str(e)
        position = f"{name}:{mark.line + 1}" if mark else f"{name}:1"
        raise ConfigError([Mistake(position, "YAML value", problem, "use plain values, lists and mappings only")]) from e
    finally:
        loader.dispose()


def _note_positions(node: yaml.Node, key: Key, document: Document) -> None:
    """Fills the positions below `node`. Aliases of themselves, or of very many values, are mistakes: they would not end."""
    position = _place(document.name, node)
    if len(key) > MAX_DEPTH:
        raise ConfigError([Mistake(position, dotted(key[:3]) + "...", "nested too deeply (or an alias of itself)")])
    if len(document.value_positions) > MAX_NODES:
        problem = f"the file expands to more than {MAX_NODES} values (aliases of aliases?)"
        raise ConfigError([Mistake(position, dotted(key), problem, "a run needs about a hundred; write them out")])
    document.value_positions[key] = position
    if node.tag not in PLAIN_TAGS:
        problem = f"the tag {node.tag!r} is not supported"
        document.mistakes.append(Mistake(position, dotted(key), problem, "plain values, lists and mappings only"))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            document.key_positions[(*key, index)] = _place(document.name, item)
            _note_positions(item, (*key, index), document)
    elif isinstance(node, yaml.MappingNode):
        for name_node, value in node.value:
            _note_entry(name_node, value, key, document)


def _note_entry(name_node: yaml.Node, value: yaml.Node, key: Key, document: Document) -> None:
    position = _place(document.name, name_node)
    if not isinstance(name_node, yaml.ScalarNode):
        problem = "expected text as a key, found a list or a mapping"
        raise ConfigError([Mistake(position, dotted(key), problem, "quote it if it is text")])
    child = (*key, str(name_node.value))
    if child in document.key_positions:
        remedy = f"its first position is {document.key_positions[child]}; keep one of the two"
        document.mistakes.append(Mistake(position, dotted(child), "duplicate key", remedy))
        return
    document.key_positions[child] = position
    _note_positions(value, child, document)


def _place(name: str, node: yaml.Node) -> str:
    return f"{name}:{node.start_mark.line + 1}"


def _syntax_remedy(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "a value that contains `: ` needs quotes, and keys of one mapping need the same indent"
    if "expected <block end>" in problem or "expected ',' or" in problem:
        return "check the indent and the brackets at and above this line"
    return ""
