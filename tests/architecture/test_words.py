"""The field's words in all tracked text: none of the retired words, and short lines of prose in Markdown."""

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_PROSE = 130
KEPT = ("CHANGELOG.md", "docs/design/00*", "tests/fixtures/*", "tests/architecture/test_words.py")  # history, and this list

REPLACEMENTS = {  # retired word, `_` as a space -> what to write
    r"lay|lays|laid|laying": "write, ingest",
    r"wings?": "package",
    r"foretell\w*|foretold": "predict",
    r"deaf|deafer": "insensitive",
    r"platter": "(literary)",
    r"put in by hand": "simulated, injected",
    r"by lot": "at random",
    r"a watch|the watch|watches": "monitoring run; (it) monitors",
}


def files(*suffixes: str) -> list[str]:
    """Tracked files with one of the suffixes, without those in KEPT."""
    try:
        found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for path in found if path.endswith(suffixes) and not is_in(path, KEPT)]


def is_in(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def retired_words(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, word, replacement) of every retired word, also as a part of an identifier."""
    for words, replacement in REPLACEMENTS.items():
        for match in re.finditer(rf"(?<![a-z])(?:{words})(?![a-z])", text.lower().replace("_", " ")):
            yield text.count("\n", 0, match.start()) + 1, match.group(), replacement


def long_lines(text: str) -> Iterator[tuple[int, int]]:
    """(line, length) of every line of prose over MAX_PROSE characters: no tables, no code, addresses not counted."""
    is_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        length = len(re.sub(r"\]\([^)]*\)|https?://\S+", "", line))
        if length > MAX_PROSE and not is_code and not line.startswith(("|", "    ")):
            yield number, length


def test_no_tracked_file_has_a_retired_word() -> None:
    problems = [
        f"{path}:{line}: {word!r}, write: {replacement}"
        for path in files(".py", ".md", ".html", ".yaml")
        for line, word, replacement in retired_words((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


def test_lines_of_prose_are_short() -> None:
    problems = [
        f"{path}:{line}: {length} characters of prose, at most {MAX_PROSE}: break the line"
        for path in files(".md")
        for line, length in long_lines((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


def test_the_docs_name_modules_that_are_there() -> None:
    named = re.compile(r"\b(?:driftline|flows|configs|pipelines|models|benchmarks|tests)/[a-z_0-9/]+\.py\b")
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        missing = {name for name in named.findall(path.read_text(encoding="utf-8")) if not (ROOT / name).is_file()}
        assert not missing, f"{path.name} names {missing}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("scenes are laid", ["laid"]),
        ("\ndef test_a_watch_is_killed():", ["a watch"]),
        ("the layout of layers, delayed; watch the disk", []),
        ("Foretells", ["foretells"]),
    ],
)
def test_retired_words_are_found_in_text_and_names(text: str, found: list[str]) -> None:
    assert [word for _, word, _ in retired_words(text)] == found


def test_long_lines_are_prose_only() -> None:
    long = "x" * 140
    assert list(long_lines(f"{long}\n| {long} |\n```\n{long}\n```\n[a]({long})\n")) == [(1, 140)]
