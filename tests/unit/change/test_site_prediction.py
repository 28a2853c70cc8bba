"""Which network predicts which part of a site."""

import pytest

from pipelines.change.site_prediction import members_of, strips
from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import choose_sites
from pipelines.samples.site_groups import count_networks, group_sites
from pipelines.tiles import Box

SHAPE = 40, 50
WHOLE = Box.whole((40, 50))


def test_a_site_is_predicted_by_the_network_that_has_not_seen_it():
    grouping = group_sites(dict.fromkeys("abcd", SHAPE), [["a", "c"]], least_px=5, gap_px=0)
    found = [members_of(grouping, name, SHAPE, 3)[WHOLE] for name in ("a", "b", "c", "d", "new")]
    assert found == [[0], [1], [0], [2], [0, 1, 2]]


def test_a_strip_is_predicted_by_the_network_that_has_not_seen_it():
    grouping = group_sites(dict.fromkeys("abc", SHAPE), [["a", "c"]], least_px=5, gap_px=0)
    assert len(grouping) == count_networks("abc", [["a", "c"]]) == 4  # two groups: strips
    assert members_of(grouping, "new", SHAPE, 4) == {WHOLE: [0, 1, 2, 3]}
    assert [members for tile, members in members_of(grouping, "a", SHAPE, 4).items() if tile != WHOLE] == [[0], [1], [2], [3]]


def test_strips_cover_a_tile_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.change.site_prediction.STRIP_PX", 100)
    rows = [row for part, columns in strips(Box((3, 0), (10, 50))) for row in range(10)[part] if columns == slice(0, 50)]
    assert rows == list(range(3, 10))


def test_sites_are_chosen_once_and_in_the_order_of_the_request(tmp_path):
    refused_json = tmp_path / "refused.json"
    assert choose_sites("abc", None, (), refused_json) == ["a", "b", "c"]
    assert choose_sites("abc", ["c", "a", "c", "z"], ["z"], refused_json) == ["c", "a"]
    with pytest.raises(RequestError, match="names z, which is no site of this run; the sites are a, b, c"):
        choose_sites("abc", ["a", "z"], (), refused_json)
    with pytest.raises(RequestError, match=r"none of prediction.sites \(z\) can be used: .*refused.json says why"):
        choose_sites("abc", ["z"], ["z"], refused_json)
