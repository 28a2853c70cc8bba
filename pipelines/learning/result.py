"""What `driftline evaluate` hands over, the same value for every task: figures of methods, criteria, the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipelines.errors import RequestError
from pipelines.learning.intervals import Interval, Outcome, Unit
from pipelines.notebook import html_table

if TYPE_CHECKING:
    from pipelines.learning.choice import Choice

NOT_TO_BE_PUBLISHED = "Not to be published:"
CONFOUNDED = f"{NOT_TO_BE_PUBLISHED} nobody can say what the model has learnt. --even-if-confounded publishes it and says so."
Figure = float | int | str | None
COMBINATION: Literal["combination"] = "combination"  # of a forecast: the mean of several methods, beside them in every table
CLAIMS: dict[Outcome, str] = {
    "beats": "the model beats it",
    "equal": "equal, the difference is immaterial (margin {margin})",
    "not distinguishable": "not distinguishable",
    "loses": "the model loses to it",
}
SHORT: dict[Outcome, str] = {
    "beats": "beats {}",
    "equal": "equals {}",
    "not distinguishable": "is not distinguishable from {}",
    "loses": "loses to {}",
}


class NoTruth(RequestError):
    """Nothing is known here to score a model by; one that was trained elsewhere is used all the same."""


@dataclass(frozen=True)
class Criterion:
    """An acceptance criterion: whether the measured `value` is `at least` or `at most` what is `requested`.

    >>> Criterion("drops of 0.4 found", 0.98, 0.5).is_met
    True
    """

    name: str
    value: float | None
    requested: float
    kind: Literal["at least", "at most"] = "at least"
    unit: str = ""

    @property
    def is_met(self) -> bool:
        if self.value is None or self.value != self.value:
            return False
        return self.value >= self.requested if self.kind == "at least" else self.value <= self.requested

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_met": self.is_met}


@dataclass(frozen=True)
class Verdict:
    """`outcomes` per baseline or other method, at `confidence`, for differences of at least `margin`.

    Of a forecast they are those of the combination where that is published, else of the network.

    confounded_by: metadata that give the labels away as the model does (`pipelines.learning.shortcuts`): not publishable.

    is_publishable: against everything in `must_beat` the model is better by at least the margin. Of a forecast the best method is
    published (`pipelines.learning.choice`), so always. margin: a share of the baseline's error, or a difference of F1. unit: what
    the intervals count as independent, so what the outcomes hold for.
    """

    outcomes: dict[str, Outcome]
    must_beat: tuple[str, ...]
    is_publishable: bool
    sentence: str
    unit: Unit
    margin: float
    confidence: float
    best_baseline: str | None = None
    confounded_by: tuple[str, ...] = ()
    published: str = ""  # of a forecast: the method, one of `outcomes`, the network or the combination

    def allows(self, *, even_if_worse: bool = False, even_if_confounded: bool = False) -> bool:
        """Whether the model may be published, with what the user insists on; of a confounded one nothing else counts."""
        return self.is_publishable or (even_if_confounded if self.confounded_by else even_if_worse)

    @property
    def gate(self) -> str:
        """What the sentence says of the gate where it is shut."""
        return self.sentence[max(self.sentence.find(NOT_TO_BE_PUBLISHED), 0) :]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured of what a run would publish, beside its baselines.

    shipped: the method that is published. methods: name -> flat figures of it; None is not measured. verdict.is_publishable opens
    the gate. details: JSON values whose keys belong to the task (errors by lead, sites, intervals...). notes: what a reader must
    know before believing the figures. protocol: how it was measured, in sentences.
    """

    shipped: str
    methods: Mapping[str, Mapping[str, Figure]]
    verdict: Verdict
    criteria: tuple[Criterion, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    protocol: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `evaluation.json` holds them beside the hash of the model and the cube's snapshot."""
        return {
            **vars(self),
            "methods": {name: dict(figures) for name, figures in self.methods.items()},
            "verdict": self.verdict.to_json(),
            "criteria": [criterion.to_json() for criterion in self.criteria],
            "details": dict(self.details),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """What `to_json` wrote. Raises KeyError or TypeError for anything else."""
        plain = content["verdict"]
        tuples = {name: tuple(plain.get(name, ())) for name in ("must_beat", "confounded_by")}
        verdict = Verdict(**{**plain, **tuples})
        criteria = [{key: value for key, value in one.items() if key != "is_met"} for one in content["criteria"]]
        known = {name: content[name] for name in ("shipped", "methods", "details", "protocol")}
        return cls(**known, verdict=verdict, criteria=tuple(Criterion(**one) for one in criteria), notes=tuple(content["notes"]))

    def __repr__(self) -> str:
        return f"Evaluation({self.shipped}, {self.verdict.sentence!r})"

    def _repr_html_(self) -> str:
        """The figures of all methods, the published one first, and the verdict."""
        names = sorted(self.methods, key=lambda name: name != self.shipped)
        figures = list(dict.fromkeys(key for name in names for key in self.methods[name]))
        rows = [(name, *(self.methods[name].get(figure) for figure in figures)) for name in names]
        return html_table("Evaluation", rows, ["", *figures], [self.verdict.sentence])


# ---------------------------------------------------------------- verdicts


def forecast_verdict(
    skills: Mapping[str, Interval], errors: Mapping[str, float], choice: Choice, *, margin: float, confidence: float
) -> Verdict:
    """The verdict over overall skills and errors (any common unit) of the baselines on the test part, by name.

    The skills are those of the combination where that is published, else of the network.
    """
    best = min(errors, key=lambda name: errors[name], default=None)
    outcomes = {name: skill.outcome(margin) for name, skill in skills.items()}
    is_combined = choice.published == COMBINATION
    published = "the network" if choice.published not in skills else f"the baseline {choice.published}"
    if is_combined:
        published = f"the combination, the mean of {members_text(choice.members)}"
    sentences, ours = [f"Published is {published}: {choice.reason}."], "combination" if is_combined else "network"
    named = list(dict.fromkeys(name for name in (choice.baseline, best) if name))
    if named:
        first = _skill_sentence(named[0], skills[named[0]], margin, confidence, ours)
        sentences.append(f"On the test part: {first[0].lower()}{first[1:]}" if first.startswith("The ") else first)
        sentences += [_skill_sentence(name, skills[name], margin, confidence, ours) for name in named[1:]]
    others = {name: outcome for name, outcome in outcomes.items() if name not in named}
    if others:
        sentences.append(_others_sentence(others, skills))
    if best:
        sentences.append(f"The best baseline there is {best}.")
    return Verdict(outcomes, (), True, " ".join(sentences), "dates", margin, confidence, best, published=choice.published)


def forecast_criteria(published: str, error: float, baselines: Mapping[str, float], margin: float) -> tuple[Criterion, ...]:
    """On the test part what is published is no worse than the best baseline there by more than the margin; errors in any unit."""
    if not baselines:
        return ()
    best = min(baselines, key=lambda name: baselines[name])
    ratio = error / baselines[best] if baselines[best] > 0 else None
    name = f"error of {called(published)} over that of the best baseline on the test part, {best}"
    return (Criterion(name, ratio, 1 + margin, "at most", unit="share"),)


def detection_verdict(
    shipped: str, methods: Mapping[str, Mapping[str, Any]], differences: Mapping[str, Interval], must_beat: Sequence[str], *,
    margin: float, confidence: float, are_strips: bool = False, confounded_by: tuple[str, ...] = (), confounded: str = "",
) -> Verdict:  # fmt: skip
    """The verdict over the differences of pooled F1 to each other method. `methods` as in evaluation.json.

    are_strips: what was left out were strips of sites, not whole sites. confounded: the sentence on what it is `confounded_by`.
    """
    outcomes = {name: difference.outcome(margin) for name, difference in differences.items()}
    wanting = failing(differences, must_beat, margin)
    pooled, interval = methods[shipped]["pooled"], methods[shipped]["f1_interval"]
    where = "strips of these sites that it has not learnt from" if are_strips else "sites that it has not seen"
    sentences = [
        f"{shipped} finds change on {where} with F1 {_figure(pooled['f1'])}{_range(interval, confidence, _figure)}, "
        f"precision {_figure(pooled['precision'])}, recall {_figure(pooled['recall'])}."
    ]
    if interval["unit"] == "blocks":
        sentences.append("The intervals hold for these sites only: fewer than three that are independent say nothing of others.")
    f1_of = {name: methods[name]["pooled"]["f1"] for name in must_beat}
    sentences += [_f1_sentence(name, f1_of[name], differences[name], margin, confidence) for name in must_beat]
    bar = f"by at least {margin:g}"
    gate = _gate_sentences(outcomes, must_beat, wanting, f"{bar} in F1", f"F1 is larger {bar}")
    told = " ".join([*sentences, *([confounded, CONFOUNDED] if confounded_by else gate)])
    is_publishable, must, unit = not (wanting or confounded_by), tuple(must_beat), interval["unit"]
    return Verdict(outcomes, must, is_publishable, told, unit, margin, confidence, confounded_by=confounded_by)


def bounds_text(interval: Mapping[str, Any], confidence: float, shown: Callable[[float], str] = "{:.3f}".format) -> str:
    """The bounds of an interval (as `Interval.to_json` gives it) behind its value; "" without bounds.

    >>> bounds_text({"low": 0.9, "high": 1.0, "basis": "19 blocks"}, 0.95)
    ' (95 % interval 0.900 to 1.000, 19 blocks)'
    """
    if interval["low"] is None or interval["high"] is None:
        return ""
    return f" ({confidence * 100:g} % interval {shown(interval['low'])} to {shown(interval['high'])}, {interval['basis']})"


def not_worse(named: str, gain: Interval, margin: float) -> Criterion:
    """Met unless a reference is better by the margin beyond doubt. `gain`: of the model over it, its upper bound counts."""
    return Criterion(f"{named}, upper bound", gain.value if gain.high is None else gain.high, -margin)


def unmet(criteria: Sequence[Criterion]) -> list[str]:
    """The sentence about criteria that are not met; [] where all are."""
    missed = [criterion.name for criterion in criteria if not criterion.is_met]
    if not missed:
        return []
    return [f"{NOT_TO_BE_PUBLISHED} not met: {listed(missed)}. --even-if-worse publishes it all the same."]


def failing(differences: Mapping[str, Interval], must_beat: Sequence[str], margin: float) -> list[str]:
    """Those of `must_beat` against which the model is not good enough to be published. A tie is not good enough."""
    values = {name: differences[name].value for name in must_beat}
    return [name for name, value in values.items() if value is None or value < margin]


def _skill_sentence(name: str, skill: Interval, margin: float, confidence: float, ours: str) -> str:
    claim = CLAIMS[skill.outcome(margin)].format(margin=f"{margin * 100:g} %").replace("model", ours)
    if skill.value is None:
        return f"The {ours} cannot be compared with {name}: {skill.reason}."
    if math.isinf(skill.value):
        return f"{name} makes no error, the {ours} does: {claim}."
    change = f"{_percent(abs(skill.value))} {'smaller' if skill.value > 0 else 'larger'} than"
    if abs(skill.value) < 0.0005:
        change = "within 0.1 % of"
    return f"The {ours}'s error is {change} that of {name}{_range(skill.to_json(), confidence, _percent)}: {claim}."


def _f1_sentence(name: str, f1: float | None, difference: Interval, margin: float, confidence: float) -> str:
    claim = CLAIMS[difference.outcome(margin)].format(margin=f"{margin:g}")
    value = "undefined" if difference.value is None else f"{difference.value:+.3f}"
    return f"{name}: F1 {_figure(f1)}, difference {value}{_range(difference.to_json(), confidence, '{:+.3f}'.format)}: {claim}."


def _range(interval: Mapping[str, Any], confidence: float, shown: Callable[[float], str]) -> str:
    without = f" (no interval: {interval['reason']})" if interval["reason"] else ""
    return bounds_text(interval, confidence, shown) or without


def _others_sentence(outcomes: Mapping[str, Outcome], skills: Mapping[str, Interval]) -> str:
    def with_skill(name: str) -> str:
        skill = skills[name].value
        if skill is None or math.isinf(skill):
            return name
        return f"{name} ({_percent(abs(skill))} {'smaller' if skill >= 0 else 'larger'} error)"

    groups = [(words, [with_skill(name) for name in outcomes if outcomes[name] == outcome]) for outcome, words in SHORT.items()]
    parts = [words.format(listed(names)) for words, names in groups if names]
    return f"It {listed(parts)}."


def _gate_sentences(
    outcomes: Mapping[str, Outcome], must_beat: Sequence[str], wanting: Sequence[str], bar: str, gain: str
) -> list[str]:
    if wanting:
        text = f"{NOT_TO_BE_PUBLISHED} it must beat {listed(wanting)} {bar} (evaluation.must_beat)."
        return [text, "--even-if-worse publishes it all the same."]
    doubtful = [name for name in must_beat if outcomes[name] != "beats"]
    if not doubtful:
        return []
    than = f"than {'that' if len(must_beat) == 1 else 'those'} of {listed(must_beat)}"
    return [f"It may be published: its {gain} {than}; against {listed(doubtful)} this may be chance."]


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def called(method: str, network: str = "model") -> str:
    """A method of a forecast as people read it: network, combination, or the baseline's name."""
    return "network" if method == network else method


def named(method: str, network: str = "model") -> str:
    """In a sentence: the network, the combination, or a baseline by its name."""
    return "the network" if method == network else f"the {method}" if method == COMBINATION else method


def members_text(members: Sequence[str], network: str = "model") -> str:
    """The members of a combination: network and gradient_boosting."""
    return listed([called(name, network) for name in members])


def equal_text(equal: Mapping[str, str], network: str = "model") -> str:
    """Which methods are one and the same, in a sentence; "" where none are.

    >>> equal_text({"median_anomaly": "climatology", "model": "climatology"})
    'On the validation part climatology, median_anomaly and network forecast the same: a combination counts climatology alone.'
    """
    groups = {kept: [kept, *(name for name, twin in equal.items() if twin == kept)] for kept in equal.values()}
    same = [
        f"{members_text(group, network)} forecast the same: a combination counts {kept} alone" for kept, group in groups.items()
    ]
    return f"On the validation part {'; '.join(same)}." if same else ""


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; at least one word."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
