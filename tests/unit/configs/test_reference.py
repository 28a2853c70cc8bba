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
