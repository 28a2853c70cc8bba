"""What the numbers say, in plain words: does the model beat the rules that it must beat?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.learning.bootstrap import Skill

ORDER = ("beats", "not distinguishable", "loses")


@dataclass(frozen=True)
class Verdict:
    """`outcomes` per baseline, at the stated confidence. `is_publishable`: against every baseline that must be beaten the error
    is smaller (`publish_if` "smaller_error"), or smaller with an interval that leaves no doubt ("beyond_doubt").
    """

    outcomes: dict[str, str]
    must_beat: tuple[str, ...]
    best_baseline: str
    is_publishable: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    skills: dict[str, Skill],
    errors: dict[str, float],
    must_beat: Sequence[str],
    confidence: float,
    publish_if: str = "smaller_error",
) -> Verdict:
    """The verdict over overall skills and errors (any common unit) by baseline name."""
    outcomes = {name: skill.outcome for name, skill in skills.items()}
    best = min(errors, key=lambda name: errors[name])
    wanting = [name for name in must_beat if not _is_enough(skills[name], publish_if)]
    return Verdict(outcomes, tuple(must_beat), best, not wanting, _sentence(skills, best, must_beat, wanting, confidence))


def _is_enough(skill: Skill, publish_if: str) -> bool:
    if publish_if == "beyond_doubt":
        return skill.outcome == "beats"
    return skill.skill is not None and skill.skill > 0


def _sentence(skills: dict[str, Skill], best: str, must_beat: Sequence[str], wanting: Sequence[str], confidence: float) -> str:
    groups = [(outcome, [name for name in skills if skills[name].outcome == outcome]) for outcome in ORDER]
    words = {"beats": "beats {}", "not distinguishable": "cannot be told apart from {}", "loses": "loses to {}"}
    parts = [words[outcome].format(_list([f"{n} ({_percent(skills[n])})" for n in names])) for outcome, names in groups if names]
    text = f"The model {_list(parts)} at {confidence:.0%} confidence. The best baseline is {best}."
    if not must_beat:
        return text
    if wanting:
        return (
            f"{text} It was to beat {_list(list(must_beat))} and does not beat {_list(wanting)}: not published unless asked for."
        )
    doubtful = [name for name in must_beat if skills[name].outcome != "beats"]
    doubt = f", though the test dates do not put it beyond doubt for {_list(doubtful)}" if doubtful else ""
    return f"{text} Its error is smaller than that of what it must beat ({_list(list(must_beat))}){doubt}."


def _percent(skill: Skill) -> str:
    if skill.skill is None:
        return "which makes no error"
    change = f"{abs(skill.skill):.1%} {'smaller' if skill.skill >= 0 else 'larger'} error"
    return change if skill.low is None or skill.high is None else f"{change}, skill {skill.low:+.3f} to {skill.high:+.3f}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
