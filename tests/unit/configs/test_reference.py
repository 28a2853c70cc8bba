from pathlib import Path

from configs.reference import reference

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_reference_equals_the_schema():
    committed = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert committed == reference(), "run: python -m configs.reference > docs/config.md"


def test_every_key_of_the_run_has_a_row():
    text = reference()
    for key in ("source", "samples", "split", "prediction"):
        assert f"| `{key}` |" in text


def test_every_key_has_a_meaning_and_every_section_a_description():
    tables = reference().split("## Keys of earlier versions")[0].split("\n## ")[1:]
    for table in tables:
        title, description = table.split("\n")[0], table.split("\n")[2]
        assert description, f"{title} has no docstring"
        assert "|  |\n" not in table, f"a key of {title} has no Field(description=...)"
