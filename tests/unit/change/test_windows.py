import numpy as np
import pytest
import torch

from pipelines.change.windows import ChangeWindows, WindowSettings, check_classes
from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import LabelledSite, Region
from pipelines.tiles import Box

WHOLE = Box.whole((40, 50))


def site(name="a", dates=2, changed=((30, 44),), seed=0):
    """x is the pixel's own number plus 10,000 per date, so that a window says where it was cut."""
    label = np.zeros((40, 50), np.uint8)
    for row, column in changed:
        label[row, column] = 1
    x = np.arange(2000, dtype=np.float32).reshape(1, 1, 40, 50) + 10_000 * np.arange(dates, dtype=np.float32)[:, None, None, None]
    days = np.array([100.0, 130.0, 200.0])[:dates]
    return LabelledSite(name, x, np.ones((dates, 40, 50), bool), days, label)


def windows(sites, regions=None, is_fixed=False, **changes):
    settings = WindowSettings(**{"window_px": 16, "windows": 40, "changed_share": 0.5, **changes})
    by_name = {one.name: one for one in sites}
    return ChangeWindows(by_name, regions or [Region(name, WHOLE) for name in by_name], settings, 3, is_fixed)


def batch_of(drawn):
    return drawn.gather(list(range(len(drawn))))


def test_the_asked_share_of_windows_sees_change():
    for share, least, most in ((0.0, 0, 12), (0.5, 20, 32), (1.0, 40, 40)):
        target = batch_of(windows([site()], changed_share=share))["target"]
        assert target.shape == (40, 1, 16, 16)
        assert least <= int((target.sum((1, 2, 3)) > 0).sum()) <= most


def test_image_label_and_validity_are_turned_alike():
    one = site(changed=[(r, c) for r in range(0, 40, 3) for c in range(0, 50, 7)])
    one.valid_THW[1, ::5] = False
    drawn = batch_of(windows([one], augment=True, reverse_time=True))
    number = drawn["x_TCHW"][:, :, 0].min(1).values.long()
    at = number // 50, number % 50
    label, valid = torch.from_numpy(one.label_HW), torch.from_numpy(one.valid_THW)
    assert torch.equal(drawn["target"][:, 0] == 1, label[at] == 1)
    assert torch.equal(drawn["weight"][:, 0], valid.all(0)[at])
    assert len({tuple(w.flatten()[:2].tolist()) for w in number - number.amin((1, 2), keepdim=True)}) >= 6  # symmetries


def test_swapped_dates_come_in_reverse_order_with_their_distances():
    drawn = batch_of(windows([site(dates=3)], reverse_time=True))
    first = drawn["x_TCHW"][:, 0, 0, 0, 0]
    is_reversed = first >= 20_000
    assert 10 <= int(is_reversed.sum()) <= 30
    assert drawn["elapsed_T"][is_reversed].unique(dim=0).tolist() == [[0, 70, 30]]
    assert drawn["elapsed_T"][~is_reversed].unique(dim=0).tolist() == [[0, 30, 70]]


def test_what_is_drawn_depends_on_seed_and_epoch_alone():
    one, other = windows([site()], augment=True), windows([site()], augment=True)
    one.set_epoch(5)
    one.set_epoch(7)
    other.set_epoch(7)
    assert all(torch.equal(a, b) for a, b in zip(batch_of(one).values(), batch_of(other).values(), strict=True))
    other.set_epoch(8)
    assert not torch.equal(batch_of(one)["x_TCHW"], batch_of(other)["x_TCHW"])
    fixed = windows([site()], is_fixed=True)
    before = batch_of(fixed)["x_TCHW"]
    fixed.set_epoch(9)
    assert torch.equal(batch_of(fixed)["x_TCHW"], before)


def test_windows_stay_in_their_region_and_sites_take_turns():
    region = Region("a", Box((10, 8), (32, 30)))
    number = batch_of(windows([site()], [region]))["x_TCHW"][:, 0, 0].long()
    assert (int((number // 50).min()), int((number // 50).max())) >= (10, 0)
    assert int((number // 50).max()) < 32
    assert int((number % 50).min()) >= 8
    assert int((number % 50).max()) < 30
    pair = windows([site("a"), site("b", dates=3)])
    assert [shape[0] for shape in pair.shapes[:4]] == [2, 3, 2, 3]
    assert pair.gather([1, 3])["x_TCHW"].shape == (2, 3, 1, 16, 16)


def test_a_region_smaller_than_a_window_is_filled_with_what_nobody_knows():
    drawn = batch_of(windows([site(changed=[(2, 2)])], [Region("a", Box.whole((10, 12)))]))
    assert drawn["x_TCHW"].shape[-2:] == (16, 16)
    assert not drawn["weight"][..., 10:, :].any()
    assert not drawn["weight"][..., 12:].any()
    assert drawn["weight"][..., :10, :12].all()


def test_regions_of_one_class_are_refused():
    empty = site(changed=())
    with pytest.raises(RequestError, match=r"the group a \(a\) holds only the class 'unchanged'.*labels.changed"):
        check_classes([empty], [Region("a", WHOLE)], "the group a")
    with pytest.raises(RequestError, match=r"strip 2 \(a\) holds only .* three are the practical minimum$") as refused:
        check_classes([empty], [Region("a", WHOLE)], "the group strip 2", is_strip=True)
    assert "evaluation.groups" not in str(refused.value), "strips have no names there"
    unknown = LabelledSite("u", empty.x_TCHW, empty.valid_THW, empty.days_T, np.full((40, 50), 255, np.uint8))
    with pytest.raises(RequestError, match="holds no pixel whose label is known"):
        check_classes([unknown], [Region("u", WHOLE)], "the group u")
    check_classes([site()], [Region("a", WHOLE)], "the group a")


def test_a_site_whose_arrays_do_not_fit_is_our_mistake():
    one = site()
    with pytest.raises(ValueError, match=r"a: x has shape \(2, 1, 40, 50\), valid \(2, 40, 50\), label \(39, 50\)"):
        LabelledSite("a", one.x_TCHW, one.valid_THW, one.days_T, one.label_HW[1:])
