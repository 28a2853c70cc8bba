import json
import math

import pytest
import torch

from models.change_detector import KINDS, ChangeDetector, build_network, elapsed_days, log_score, rebuild_network
from models.checkpoint import DETECTOR, CheckpointDamaged

METADATA = {"bands": ["B02", "B08"], "left_out": [["paris", "bercy"], ["rennes"]], "nothing": None}


def detector_of(kind: str = "siamese_dcrn", members: int = 2, **more) -> ChangeDetector:
    networks = [build_network(kind, bands=2, widths=(4, 6), seed=seed) for seed in range(members)]
    for network in networks:
        torch.nn.init.normal_(network.decoder.head.weight)
    return ChangeDetector(networks, **more).eval()


def site(dates: int = 2):
    """(x_TCHW, valid_THW, days_T)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(dates, 2, 13, 18, generator=generator)
    valid = torch.rand(dates, 13, 18, generator=generator) > 0.2
    return x * valid[:, None], valid, 17000 + 30.0 * torch.arange(dates, dtype=torch.float64)


# ---------------------------------------------------------------- networks by name


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_depends_on_its_seed_alone(kind):
    before = torch.random.get_rng_state()
    one, same, other = (build_network(kind, bands=4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before), "the global random state is not changed"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_described_by_plain_json(kind):
    network = build_network(kind, bands=3, widths=[5, 7], dropout=0.2)
    description = json.loads(json.dumps(network.describe()))
    again = rebuild_network(description)
    assert (type(again), again.config) == (type(network), network.config)


@pytest.mark.parametrize("recurrence", ["convlstm", "convgru", "dcrn"])
def test_the_recurrence_applies_to_the_siamese_network(recurrence):
    assert build_network("siamese_dcrn", bands=1, recurrence=recurrence).config.recurrence == recurrence
    assert not hasattr(build_network("fc_ef", bands=1, recurrence=recurrence).config, "recurrence")


def test_unknown_kinds_are_reported():
    with pytest.raises(
        ValueError, match="one of siamese_dcrn, l_unet, fc_siam_diff, fc_siam_conc, fc_ef, got the change network 'bit'"
    ):
        build_network("bit", bands=1)
    with pytest.raises(ValueError, match="expected the recurrence 'convlstm', 'convgru' or 'dcrn', got 'rnn'"):
        build_network("siamese_dcrn", bands=1, recurrence="rnn")
    with pytest.raises(ValueError, match=r"widths need at least one scale of at least one channel, got \(\)"):
        build_network("fc_ef", bands=1, widths=[])
    with pytest.raises(TypeError, match="Linear states no halo, stride, flops and description"):
        ChangeDetector([torch.nn.Linear(1, 1)])


# ---------------------------------------------------------------- the detector


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_prediction_have_equal_logits(kind):
    detector, (x, valid, days) = detector_of(kind), site()
    batch = {"x_TCHW": x[None], "valid_THW": valid[None], "elapsed_T": elapsed_days(days)[None]}
    logit = detector.compute_member(1, batch)
    assert logit.shape == (1, 1, 13, 18)
    assert logit.requires_grad
    asked, seen = detector.member_logit(1, x, valid, days), valid.all(dim=0)
    assert torch.equal(asked[seen], logit[0, 0][seen])
    assert asked[~seen].isnan().all()


def test_elapsed_days_by_hand():
    assert elapsed_days(torch.tensor([10.0, 26.0, 30.5], dtype=torch.float64)).tolist() == [0.0, 16.0, 4.5]


def test_calibration_is_per_member():
    detector, (x, valid, days) = detector_of(), site()
    detector.calibrate_member(1, 0.5, 0.25)
    logit, seen = detector.member_logit(1, x, valid, days), valid.all(dim=0)
    p = detector.member_probability(1, logit)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p[seen], torch.sigmoid(0.5 * logit + 0.25)[seen])
    assert p[~seen].isnan().all()
    torch.testing.assert_close(detector.member_probability(0, logit)[seen], torch.sigmoid(logit)[seen])


def test_a_pixel_needs_two_dates_of_a_series():
    detector, (x, _, days) = detector_of(), site(dates=4)
    valid = torch.zeros(4, 13, 18, dtype=torch.bool)
    valid[0], valid[2, 5] = True, True
    seen = ~detector.member_logit(0, x, valid, days).isnan()
    assert seen[5].all()
    assert seen.sum() == 18


def test_the_calibration_of_the_index_keeps_order_and_nan():
    detector = detector_of()
    detector.calibrate_index(2.0, -1.0)
    score = torch.tensor([0.0, 1e-9, 0.5, 1.0, 3.0, float("nan")])
    p = detector.index_probability(score)
    assert p[3] == pytest.approx(1 / (1 + math.e))  # log 1 = 0
    assert p[4] == pytest.approx(9 / (9 + math.e))  # exp(2 log 3 - 1) = 9 / e
    assert (p[:5].diff() >= 0).all()
    assert p[5].isnan()
    assert log_score(score)[0] == pytest.approx(math.log(1e-6))


@pytest.mark.parametrize(("scale", "bias"), [(-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_a_calibration_never_reverses_the_order(scale, bias):
    detector = detector_of()
    with pytest.raises(ValueError, match="the calibration of member 1 needs a finite scale >= 0 and a finite bias"):
        detector.calibrate_member(1, scale, bias)
    with pytest.raises(ValueError, match="the calibration of the change index needs"):
        detector.calibrate_index(scale, bias)


def test_fusion_is_the_geometric_mean():
    network_p, index_p = torch.tensor([0.5, 0.9, 0.2, 0.3]), torch.tensor([0.5, 0.1, 0.8, float("nan")])
    fused = detector_of().fuse(network_p, index_p)
    assert fused[:3].tolist() == pytest.approx([0.5, 0.3, 0.4])
    assert fused[3].isnan()
    assert torch.equal(detector_of(fuse_with="none").fuse(network_p), network_p)
    with pytest.raises(ValueError, match="this detector is fused with change_vector: its probability is required"):
        detector_of().fuse(network_p)


def test_the_threshold_is_a_probability():
    detector = detector_of()
    assert detector.threshold == 0.5
    detector.set_threshold(0.123456789)
    assert detector.threshold == 0.123456789
    with pytest.raises(ValueError, match=r"the threshold must be in 0..1, got 1\.5"):
        detector.set_threshold(1.5)


def test_members_have_one_config():
    with pytest.raises(ValueError, match="the members differ in their config"):
        ChangeDetector([build_network("fc_ef", bands=2), build_network("l_unet", bands=2)])
    with pytest.raises(ValueError, match="at least one member"):
        ChangeDetector([])


def test_the_halo_is_the_members():
    detector = detector_of("l_unet")
    assert (detector.stride_px, detector.halo_px(2)) == ((2, 2), detector.members[0].halo_px(2))
    assert detector.halo_px(5) > detector.halo_px(2)


# ---------------------------------------------------------------- on disk


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_detector_is_loaded_exactly(kind, tmp_path):
    detector, asked = detector_of(kind, fuse_with="none"), site()
    detector.calibrate_member(0, 1.25, -3.0)
    detector.calibrate_index(2.0, 0.5)
    detector.set_threshold(0.3)
    digest = DETECTOR.save(detector, tmp_path, METADATA)
    loaded, metadata = DETECTOR.load(tmp_path)
    assert metadata == METADATA
    assert DETECTOR.hash(tmp_path) == digest == DETECTOR.save(loaded, tmp_path / "again", metadata)
    assert torch.equal(loaded.member_logit(1, *asked).nan_to_num(-1), detector.member_logit(1, *asked).nan_to_num(-1))
    assert (loaded.threshold, loaded.fuse_with, loaded.halo_px(2)) == (0.3, "none", detector.halo_px(2))
    assert torch.equal(loaded.index_probability(torch.tensor([2.0])), detector.index_probability(torch.tensor([2.0])))
    assert not loaded.training


def test_a_loaded_detector_can_be_trained(tmp_path):
    DETECTOR.save(detector_of(), tmp_path, {})
    loaded, _ = DETECTOR.load(tmp_path)
    x, valid, days = site()
    loaded.compute_member(
        0, {"x_TCHW": x[None], "valid_THW": valid[None], "elapsed_T": elapsed_days(days)[None]}
    ).nansum().backward()
    assert all(weight.grad is not None for weight in loaded.members[0].parameters())
    loaded.calibrate_member(0, 2.0, 1.0)
    assert loaded.member_probability(0, torch.tensor([1.0])).item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())


@pytest.mark.parametrize("keep", [0, 100, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_truncated_file_is_damaged(name, keep, tmp_path):
    DETECTOR.save(detector_of(), tmp_path, METADATA)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointDamaged, match="train again"):
        DETECTOR.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 99),
        (("format",), "driftline-forecaster"),
        (("change-detector",), {}),
        (("change-detector", "members"), []),
        (("change-detector", "members", 0, "kind"), "oracle"),
        (("change-detector", "members", 0, "widths"), [4, 7]),
        (("change-detector", "members", 0, "widths"), 4),
        (("change-detector", "members", 0, "widths"), [100_000, 6]),
        (("change-detector", "members", 0, "recurrence"), "convgru"),
        (("change-detector", "members", 0, "colour"), "red"),
    ],
)
def test_a_mismatched_description_is_damaged(path, value, tmp_path):
    DETECTOR.save(detector_of(), tmp_path, METADATA)
    description = json.loads((tmp_path / "model.json").read_text())
    here = description
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointDamaged, match="train again"):
        DETECTOR.load(tmp_path)


def test_a_missing_detector_states_folder_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no change-detector in .*: model\.safetensors is missing; train one first"):
        DETECTOR.load(tmp_path)


def test_a_diverged_network_is_not_saved(tmp_path):
    detector = detector_of()
    detector.members[0].decoder.head.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite \(training diverged\?\), first in members\.0\.decoder\.head\.weight"):
        DETECTOR.save(detector, tmp_path / "model", {})
    assert not (tmp_path / "model").exists()
