"""The audit fires on what gives the class away, alone or together, and stays silent on what does not."""

import numpy as np

from models.baselines.class_references import MetadataForest
from pipelines.learning.shortcuts import audit_shortcuts

RNG = np.random.default_rng(0)
COUNT = 240
CLASS = RNG.integers(0, 3, COUNT)
BLOCK = np.arange(COUNT) // 8
FOLD = BLOCK % 5
GOOD = np.where(RNG.random(COUNT) < 0.95, CLASS, (CLASS + 1) % 3)
NOISE = RNG.normal(size=(COUNT, 2))


def audit(predicted=GOOD, **metadata):
    return audit_shortcuts(metadata, CLASS, FOLD, BLOCK, predicted, lambda: MetadataForest(3))


def test_a_year_that_gives_the_class_away_is_named():
    found = audit(date=2010.0 + CLASS, position=NOISE, site=np.zeros(COUNT))
    assert found.confounded_by == ("date",)
    assert found.sentence.startswith("CONFOUNDED by date (1.000): without any image this reaches the model's balanced accuracy")


def test_what_gives_it_away_only_together_is_named_together_and_without_what_adds_nothing():
    half, rest = RNG.integers(0, 3, (2, COUNT))
    rest = (CLASS - half) % 3
    found = audit(position=half.astype(float), season=rest.astype(float), size=NOISE)
    assert len(found.confounded_by) == 1
    assert set(found.confounded_by[0].split(" with ")) == {"position", "season"}


def test_noise_and_constants_are_no_shortcut():
    found = audit(position=NOISE, site=np.zeros(COUNT))
    assert found.confounded_by == ()
    assert found.notes == ()
    assert {clue.name: clue.is_constant for clue in found.clues} == {"position": False, "site": True}
    assert found.sentence.startswith("No shortcut found: of metadata alone position reaches")


def test_a_model_that_has_learnt_nothing_is_not_called_confounded_by_what_knows_nothing():
    assert audit(predicted=RNG.integers(0, 3, COUNT), position=NOISE).confounded_by == ()


def test_metadata_that_the_interval_does_not_clear_is_noted():
    rng = np.random.default_rng(1)
    partly = np.where(rng.random(COUNT) < 0.89, CLASS, rng.integers(0, 3, COUNT)).astype(float)
    found = audit(predicted=CLASS, position=partly)
    (clue,) = found.clues
    assert clue.low < 0.05 < clue.gap
    assert found.confounded_by == ()
    assert "position" in found.notes[0]
