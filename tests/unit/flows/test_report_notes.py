import pytest

from flows.stages.report import share_notes


@pytest.mark.parametrize(
    ("baseline", "share_K", "expected"),
    [
        ("decaying_anomaly", [0.0, 0.0], "this forecast is its guide (decaying_anomaly) itself"),
        ("persistence", [0.25, 0.25], "supports 25% of the correction"),
    ],
)
def test_the_report_says_how_much_is_the_network_and_how_much_the_rule(baseline, share_K, expected):
    (note,) = share_notes(baseline, share_K)
    assert expected in note


def test_a_network_that_stands_alone_has_no_guide_to_speak_of():
    assert share_notes("none", [1.0]) == []
