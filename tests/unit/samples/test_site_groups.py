import pytest

from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import Region
from pipelines.samples.site_groups import group_sites
from pipelines.tiles import Box

FOUR = {"a": (10, 20), "b": (10, 20), "c": (10, 20), "d": (10, 20)}


def test_sites_named_together_are_one_group_in_the_sites_order():
    grouping = group_sites(FOUR, [["c", "b"]], least_px=1, gap_px=0)
    assert grouping.names == ("a", "b+c", "d")
    assert grouping.groups[1] == (Region("b", Box.whole((10, 20))), Region("c", Box.whole((10, 20))))
    assert grouping.note == ""


def test_every_group_is_outside_of_what_is_left_out():
    grouping = group_sites(FOUR, [], least_px=1, gap_px=0)
    assert [r.site for r in grouping.outside((1, 3))] == ["a", "c"]
    assert grouping.describe() == {name: [name] for name in "abcd"}


def test_two_groups_become_strips_that_do_not_touch():
    grouping = group_sites({"a": (200, 90), "b": (80, 160)}, [], least_px=20, gap_px=4)
    assert len(grouping) == 4
    assert "2 groups of sites (a, b) cannot be left out one by one" in grouping.note
    rows = [group[0].tile for group in grouping.groups]
    assert [(t.rows.start, t.rows.stop) for t in rows] == [(0, 47), (51, 98), (102, 149), (153, 200)]
    assert all((t.columns.start, t.columns.stop) == (0, 90) for t in rows)
    assert [g[1].tile.edges[2:] for g in grouping.groups] == [
        (0, 37),
        (41, 78),
        (82, 119),
        (123, 160),
    ]


def test_what_cannot_be_left_out_is_refused_with_the_remedy():
    with pytest.raises(
        RequestError,
        match=r"leaving one out takes 3; a has 20 x 30 pixels.*add labelled sites, three .* are the practical minimum",
    ):
        group_sites({"a": (20, 30)}, [], least_px=16, gap_px=2)
    with pytest.raises(RequestError, match=r"evaluation.groups names 'z', which is no site of this run"):
        group_sites(FOUR, [["a", "z"]], least_px=1, gap_px=0)
    with pytest.raises(RequestError, match=r"evaluation.groups names 'a' twice"):
        group_sites(FOUR, [["a", "b"], ["a", "c"]], least_px=1, gap_px=0)
