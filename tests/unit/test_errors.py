import pickle

import pytest

from pipelines.errors import ConfigError, DriftlineError, Mistake, RequestError, SceneRefused, StateError


def test_all_mistakes_are_shown_with_position_and_remedy():
    error = ConfigError(
        [Mistake("run.yaml:3", "source.knd", "unknown key", "did you mean kind?"), Mistake("run.yaml:9", "name", "missing")]
    )
    assert str(error).splitlines() == [
        "2 mistakes in the config:",
        "  run.yaml:3  source.knd: unknown key",
        "    -> did you mean kind?",
        "  run.yaml:9  name: missing",
    ]


def test_a_refusal_can_be_pickled():
    error = SceneRefused("s2_20200101", "truncated", "block 3 ends at byte 900 of 700")
    again = pickle.loads(pickle.dumps(error))
    assert (again.scene_id, again.reason, again.detail) == (error.scene_id, error.reason, error.detail)


def test_a_refusal_quotes_no_endless_text():
    error = SceneRefused("s2", "no-date", f"the units {'2' * 60_000!r} cannot be read; expected days since a date")
    assert len(str(error)) < 2100
    assert "the units '222" in error.detail
    assert error.detail.endswith("expected days since a date")


@pytest.mark.parametrize("kind", [RequestError, StateError, SceneRefused])
def test_one_root(kind: type):
    assert issubclass(kind, DriftlineError)
