from pathlib import Path

from configs.validation import messages, reference
from pipelines.errors import DAMAGED, HARMLESS
from pipelines.refusals import REASONS

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_what_the_code_says():
    committed = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert committed == reference(), "run: python -m configs.validation > docs/validation.md"


def test_the_table_names_every_reason_that_is_raised_and_no_other():
    raised = {one.reason for one in messages() if one.error == "SceneRefused"}
    assert raised == set(REASONS), "correct REASONS in pipelines/refusals.py"
    assert {*DAMAGED, *HARMLESS} <= set(REASONS)
