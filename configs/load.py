"""Loads a YAML file as a Run, or reports all of its mistakes at once, each with its line, key and remedy.

Inputs in a config are relative to the config, `data`, `runs` and all that is written to the working folder (where `driftline` is
called); what `load_run` returns is relative to the working folder throughout.
"""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from configs.explain import Complaint, explain_all, find_lax_numbers, find_typos
from configs.paths import input_keys, is_uri, positions_of, resolve_inputs, text_beside
from configs.privacy import NAMES_OF_FILES, check_stored, without_originals
from configs.renamed import Notify, apply_renamed
from configs.schema import Finding, Sections, Strict, suggest
from configs.separate import check_separate
from configs.tasks import TASKS, AnyRun, Tree, tree_of
from configs.yaml_positions import Document, Key, PlainLoader, dotted, parent_of, parse_yaml
from pipelines.errors import ConfigError, MissingInput, Mistake, RequestError
from pipelines.files import write_text

log = logging.getLogger(__name__)


def load_run(
    path: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    inputs_must_exist: bool = True,
    notify: Notify = log.warning,
    exists: Callable[[Path], bool] = Path.exists,
) -> AnyRun:
    """The run in the YAML file at `path`, or in a mapping with the content of one; its `task` selects the kind of run.

    `overrides` are `key.key=value` strings that replace values of the file (value in YAML), their paths relative to the working
    folder. `inputs_must_exist=False` is for verbs that do not read the source (evaluate, report...). `notify` shows notes, e.g.
    that a key was renamed. `exists`: whether an input exists, asked for those that are relative in the file.

    Raises MissingInput if there is no such file and ConfigError with every mistake found.
    """
    document = read_document(path, overrides, notify=notify, exists=exists)
    tree = tree_of(document.data)
    run, errors = _validate(document, tree)
    findings = _check(_valid_sections(document, tree, errors), inputs_must_exist)
    wrong = {key for key, _ in errors}  # the checks got defaults in place of these
    mistakes = explain_all(document, errors) + [
        Mistake(document.position_of_value(one.key), dotted(one.key), one.problem, one.remedy)
        for one in findings
        if one.key not in wrong and not (len(one.key) == 1 and any(key[:1] == one.key for key in wrong))
    ]
    reported = {mistake.position for mistake in document.mistakes}
    mistakes = document.mistakes + [mistake for mistake in mistakes if mistake.position not in reported]
    if mistakes or run is None:
        raise ConfigError(sorted(mistakes, key=_by_position))
    return run


def read_document(
    path: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    notify: Notify = log.warning,
    exists: Callable[[Path], bool] = Path.exists,
) -> Document:
    """A config as it is written, with the positions of its keys, and not validated; parameters and errors as of `load_run`.

    Overrides are applied and inputs are relative to the working folder: `load_run` reads its `data` as the same run.
    """
    document = _parse_mapping(path) if isinstance(path, Mapping) else parse_yaml(_read_text(Path(path)), str(path))
    for override in overrides:
        _apply_override(document, override)
    apply_renamed(document, notify)
    tree = tree_of(document.data)
    if tree is not None:
        resolve_inputs(document, tree, notify, exists)
    return document


def _check(sections: Sections, inputs_must_exist: bool) -> list[Finding]:
    """What the schema cannot say; with `inputs_must_exist` also whether the files are there."""
    checked = [section for section in sections.values() if isinstance(section, Strict)]
    of_files = [finding for section in checked for finding in section.check_files(sections)] if inputs_must_exist else []
    findings = (finding for section in checked for finding in section.check(sections))
    return [*findings, *check_stored(sections), *check_separate(sections), *of_files]


PATTERNS_OF_FILES = ("labels.path", "lesions.masks", "evaluation.reference", "decisions")  # they may name a patient
NOT_OF_RESULTS: Any = {
    "compute": True, "prediction": {"staging"}, "cube": {"staging"}, "monitoring": {"state"}, "sweep": True
}  # fmt: skip


def config_hash(run: AnyRun) -> str:
    """SHA-256 (hex) of the resolved config as canonical JSON; equal for every notation of the same run.

    It does not depend on where work runs or what it needs is kept, on what a search would try, nor, of patients' images that are
    de-identified, on where the originals lie.
    """
    content = without_originals(run).model_dump(mode="json", exclude=NOT_OF_RESULTS)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_resolved(run: AnyRun, path: Path) -> None:
    """Writes every value of the run, defaults included, as YAML that `load_run` reads as the same run.

    That holds in the same working folder: inputs are relative to `path`, `runs` and `cube.uri` to the working folder; in a run
    that is stored in S3 all are, since its folder is another one on each machine. In place of patients' images that are
    de-identified it names the copy.
    """
    origin = Path() if is_uri(run.runs) else path.parent
    head = f"# resolved by driftline, every default written out; sha256 {config_hash(run)}\n"
    content = without_originals(run).model_dump(mode="json")
    for key in (position for one in input_keys(type(run)) for position in positions_of(content, one)):
        section = parent_of(content, key)
        if isinstance(section, dict) and isinstance(section.get(key[-1]), str):
            section[key[-1]] = text_beside(section[key[-1]], origin)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, head + text, flush=False)


def _parse_mapping(content: Mapping[str, object]) -> Document:
    """A config that was never a file; its lines are those of the YAML that it would be, its paths in the working folder."""
    try:
        text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as e:
        kinds = "text, numbers, dates (datetime), lists and mappings"
        raise RequestError(f"a config holds {kinds} only: {str(e).splitlines()[0]}") from e
    return parse_yaml(text, "config")


def _read_text(path: Path) -> str:
    if path.is_dir():
        remedy = f"`driftline init {path}` writes one for the scenes in it"
        if (path / "config.yaml").is_file():
            remedy = f"it is the folder of a run: name the config of that run, or {path / 'config.yaml'}"
        raise MissingInput(f"{path} is a folder, expected a config file; {remedy}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as e:
        otherwise, names = "`driftline init FOLDER` writes one from your scenes", [p.name for p in path.parent.glob("*.y*ml")]
        remedy = suggest(path.name, names, otherwise, lambda name: str(path.parent / name))
        raise MissingInput(f"no config file at {path}; {remedy}") from e
    except UnicodeDecodeError as e:
        raise ConfigError([Mistake(f"{path}:1", "(whole file)", "not UTF-8 text", "save the config as UTF-8")]) from e
    except OSError as e:
        raise MissingInput(f"cannot read the config {path}: {e.strerror}") from e


def _apply_override(document: Document, override: str) -> None:
    name, equals, text = override.partition("=")
    hidden = (*PATTERNS_OF_FILES, *(f"source.{key}" for key in NAMES_OF_FILES))
    is_name = any(f"{name}.".startswith(f"{key}.") for key in hidden)
    position = f"--set {name}" if is_name else f"--set {override}"  # it may name a patient, and messages are logged
    key: Key = tuple(int(part) if part.isdigit() else part for part in name.split("."))
    if not equals or not all(str(part) for part in key):
        raise RequestError(f"--set {override}: expected KEY=VALUE, for example --set training.epochs=5")
    try:
        value = yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as e:
        raise RequestError(f"{position}: the value is not valid YAML: {str(e).splitlines()[0]}") from e
    node: Any = document.data
    for depth in range(1, len(key)):  # sections that the file does not have are from here
        document.key_positions.setdefault(key[:depth], position)
    if len(key) > 1 and key[0] == "model" and isinstance(word := node.get("model"), str):
        node["model"] = {"kind": word}  # the section that one word may stand for: `model: auto`
    for depth, part in enumerate(key[:-1]):
        node = _step_into(node, part, f"{position}: {dotted(key[: depth + 1])}")
    if isinstance(node, list) and isinstance(key[-1], int) and key[-1] < len(node):
        node[key[-1]] = value
    elif isinstance(node, dict):
        node[str(key[-1])] = value
    else:
        what = f"has no entry {key[-1]}" if isinstance(node, list) else "is a value and no section: set it without the dot"
        raise RequestError(f"{position}: {dotted(key[:-1])} {what}")
    document.key_positions[key] = document.value_positions[key] = position


def _step_into(node: object, part: str | int, where: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(str(part), {})
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    raise RequestError(f"{where} does not lead to a value")


# ---------------------------------------------------------------- validation


def _validate(document: Document, tree: Tree | None) -> tuple[AnyRun | None, list[Complaint]]:
    if tree is None:
        tasks = ", ".join(f"'{task}'" for task in TASKS)
        return None, [(("task",), {"type": "literal_error", "ctx": {"expected": tasks}, "input": document.data["task"]})]
    lax = find_lax_numbers(tree, document.data)
    try:
        run = tree.model_validate(document.data)
        return (None if lax else run), lax
    except ValidationError as e:
        return None, [*((_real_key(document.data, error), dict(error)) for error in e.errors(include_url=False)), *lax]


def _real_key(data: Any, error: ErrorDetails) -> Key:
    """The key in the file; pydantic also names the branches of unions, which are not in the file."""
    key: list[str | int] = []
    for depth, part in enumerate(error["loc"]):
        is_last = depth == len(error["loc"]) - 1
        if part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data)):
            data = data[part]
        elif not (is_last and error["type"] == "missing"):
            continue
        key.append(part)
    return tuple(key)


def _valid_sections(document: Document, tree: Tree | None, errors: list[Complaint]) -> Sections:
    """Each top-level section, if valid after its erroneous keys are removed, so that other checks can run."""
    if tree is None:
        return {}  # an unknown task has no other checks
    data = copy.deepcopy(document.data)
    typos = find_typos(tree, errors)
    for key, _ in sorted(errors, key=lambda complaint: -len(complaint[0])):  # deepest first: a parent may be removed too
        parent = parent_of(data, key)
        if key and isinstance(parent, dict) and key[-1] in parent:
            value = parent.pop(key[-1])
            if key in typos:
                parent.setdefault(typos[key][-1], value)
    sections: dict[str, Any] = {}
    for name, info in tree.model_fields.items():
        adapter: TypeAdapter[Any] = TypeAdapter(info.rebuild_annotation())
        try:
            sections[name] = adapter.validate_python(data[name]) if name in data else info.get_default(call_default_factory=True)
        except ValidationError:
            sections[name] = None
        if name not in data and info.is_required():
            sections[name] = None
    return sections


def _by_position(mistake: Mistake) -> tuple[str, int]:
    name, _, line = mistake.position.rpartition(":")
    return (name, int(line)) if line.isdigit() else (mistake.position, 0)
