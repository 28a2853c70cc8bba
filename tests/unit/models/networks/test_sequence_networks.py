"""The networks of whole sequences: masks, batches, order, refusals, and what rows and regions make of one image."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.blocks.centre_points import GEOMETRY
from models.networks.region_recurrent import BINS, global_features, patches_of
from models.sequence_model import rebuild_network
from tests.networks_under_test import BANDS, CASES, CLASSES, FRAME, Case
from tests.networks_under_test import SEQUENCES as KINDS

SEQUENCES = {name: case for name, case in CASES.items() if case.kind in KINDS}
SERIES = {name: case for name, case in SEQUENCES.items() if case.fixed_steps is None}
WITHOUT_STATE = {"frame_cnn", "centre_frame"}  # kinds to which the order of the frames does not matter
STEPWISE = [
    name
    for name, case in SERIES.items()
    if (c := case.build().config).per_step and c.kind not in WITHOUT_STATE and not getattr(c, "bidirectional", False)
]
every_network = pytest.mark.parametrize("name", SEQUENCES)
every_network_of_series = pytest.mark.parametrize("name", SERIES)
VALID = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)


def noise(case: Case, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three samples in float64: whole, with gaps, and one that ends early; of one image for networks of one image."""
    steps = case.steps(VALID.shape[1])
    shape = len(VALID), steps, *case.build().frame_shape
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, VALID if steps == VALID.shape[1] else torch.ones(len(VALID), steps, dtype=torch.bool)


@every_network
def test_the_answer_has_a_row_of_outputs_for_each_sample_or_step(name):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    steps = (network.steps_within or x.shape[1],) if network.config.per_step else ()
    outputs = (CLASSES + GEOMETRY, 3, 3) if CASES[name].kind == "boxes" else (CLASSES,)  # maps at a quarter of 9 x 12 px
    assert network(x, valid).shape == (3, *steps, *outputs)


@every_network_of_series
def test_a_masked_step_has_no_effect(name):
    """Whatever its values are, and as if it were not there."""
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    answers = network(x, valid)
    hidden = x.clone()
    hidden[~valid] = torch.nan
    assert torch.equal(network(hidden, valid), answers)
    for sample, seen in enumerate(valid):
        alone = network(x[sample : sample + 1, seen], torch.ones(1, int(seen.sum()), dtype=torch.bool))[0]
        wanted = answers[sample, seen] if network.config.per_step else answers[sample]
        torch.testing.assert_close(alone, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", STEPWISE)
def test_the_answer_of_a_masked_step_is_that_of_the_step_before(name):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    answers = network(x, valid)
    assert torch.equal(answers[1, 2], answers[1, 1])
    assert torch.equal(answers[2, 2:], answers[2, 1].expand_as(answers[2, 2:]))
    assert not torch.equal(answers[0, 2], answers[0, 1])


@every_network
def test_samples_do_not_depend_on_their_batch(name):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    for mode in (network.eval(), network.train()):  # no dropout in these: no layer has statistics over the batch
        together = mode(x, valid)
        for sample in range(3):
            alone = mode(x[sample : sample + 1], valid[sample : sample + 1])
            torch.testing.assert_close(alone[0], together[sample], atol=1e-12, rtol=0)


@every_network
def test_every_parameter_gets_a_gradient(name):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    network(x, valid).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", [name for name, case in SERIES.items() if case.kind == "sequence"])
def test_the_order_of_the_frames_matters_where_there_is_a_state(name):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    network.config = replace(network.config, per_step=False)
    onward, reverse = network(x, valid), network(x.flip(1), valid.flip(1))
    assert torch.allclose(onward, reverse) == (network.config.kind in WITHOUT_STATE)


def test_the_reference_answers_with_the_mean_of_the_frames_logits():
    each, one = CASES["frame_cnn, per step"].ready(), CASES["frame_cnn"].ready()
    one.load_state_dict(each.state_dict())
    x, valid = noise(CASES["frame_cnn"])
    wanted = torch.stack([answers[seen].mean(0) for answers, seen in zip(each(x, valid), valid, strict=True)])
    torch.testing.assert_close(one(x, valid), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name, case in SEQUENCES.items() if case.fixed_steps == 1])
def test_several_frames_are_refused_by_networks_of_one_image(name):
    network = CASES[name].build()
    x = torch.zeros(2, 3, *network.frame_shape)
    with pytest.raises(
        ValueError, match=rf"{network.config.kind} makes a sequence out of one image, got 3 frames: keep one frame"
    ):
        network(x, torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cnn_gru", r"\(samples, steps, 2 bands, 9 px, 12 px\)"), ("volume_gru", r"\(samples, steps, 2 bands, 5 px, 9 px, 12 px\)")],
)
def test_other_shapes_are_refused(name, expected):
    network, (x, valid) = CASES[name].ready(), noise(CASES[name])
    for wrong in (x[:, :, :1], x[..., :-1], x[:, 0], x[:, :0]):
        with pytest.raises(ValueError, match=rf"{name} expects {expected}, got"):
            network(wrong, valid)
    for mask in (valid[:, 1:], valid.float()):
        with pytest.raises(ValueError, match=rf"{name} expects a bool \(samples, steps\) = \(3, 5\), got torch"):
            network(x, mask)


def test_a_grid_keeps_where_things_are():
    left, valid = torch.zeros(1, 1, BANDS, *FRAME.values()), torch.ones(1, 1, dtype=torch.bool)
    left[..., 3:5, 2:4] = 1
    description = {"kind": "frame_cnn", "bands": BANDS, "outputs": CLASSES, **FRAME, "widths": (4,)}
    for grid in (1, 2):
        network = rebuild_network({**description, "grid": grid}).eval()
        is_same = torch.allclose(network(left, valid), network(left.roll(6, -1), valid), atol=1e-5)
        assert is_same == (grid == 1)
    with pytest.raises(
        ValueError, match="a grid of 10 does not fit 9 x 12 px, the last of 1 scales: a smaller grid or fewer widths"
    ):
        rebuild_network({**description, "grid": 10})


def test_the_example_in_the_docs_is_a_network():
    text = (Path(__file__).parents[4] / "docs" / "add-a-network.md").read_text()
    example = {"__name__": __name__}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], example)
    network = example["FrameMax"](example["FrameMaxConfig"]("frame_max", BANDS, CLASSES, **FRAME, widths=(3, 4))).double().eval()
    x, valid = noise(CASES["frame_cnn"])
    answers = network(x, valid)
    assert answers.shape == (len(x), CLASSES)
    torch.testing.assert_close(network(x[2:, :2], valid[2:, :2]), answers[2:], atol=1e-12, rtol=0)
    with FlopCounterMode(display=False) as counter:
        network(x, valid)
    assert network.flops(x.shape) == counter.get_total_flops()


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"expected one of row_rnn, .*, caption_lstm, got the network 'cnn'"):
        rebuild_network({"kind": "cnn", "bands": 1, "outputs": 2, **FRAME})


# ---------------------------------------------------------------- rows and regions


def test_rows_are_read_from_top_to_bottom():
    """After its last valid row, what a network of rows holds is what it holds of an image that ends there."""
    network = CASES["row_gru"].ready()
    x, valid = noise(CASES["row_gru"])
    bottom = x.clone().requires_grad_()
    h_BTD, _, _ = network.recurrence(bottom[:, 0].transpose(1, 2).flatten(2))
    (gradient,) = torch.autograd.grad(h_BTD[:, 3].sum(), bottom)
    assert (gradient[:, :, :, :4] != 0).all()
    assert gradient[:, :, :, 4:].abs().sum() == 0
    torch.testing.assert_close(network(x, valid), network.head(h_BTD[:, -1]), atol=1e-12, rtol=0)


def test_patches_are_in_reading_order_and_repeat_the_edge():
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    patches = patches_of(image, 2)
    assert patches.shape == (1, 6, 1, 2, 2)
    assert patches[0, 0, 0].tolist() == [[0, 1], [5, 6]]
    assert patches[0, 2, 0].tolist() == [[4, 4], [9, 9]]
    assert patches[0, 3, 0].tolist() == [[10, 11], [10, 11]]


def test_the_global_features_are_colour_and_texture_of_each_band():
    flat, stripes = torch.full((6, 8), 0.5), torch.tensor([-2.0, 2.0]).repeat(6, 4)
    image = torch.stack([flat, stripes])[None].double().requires_grad_()
    features = global_features(image).reshape(BANDS, BINS + 6)
    assert features[0, :2].tolist() == pytest.approx([0.5, 0])
    assert features[1, :2].tolist() == pytest.approx([0, 2], abs=1e-3)
    assert features[:, 2 : 2 + BINS].sum(dim=1).tolist() == pytest.approx([1, 1])
    assert features[1, 2 : 2 + BINS].tolist() == pytest.approx([0.5, *[0] * (BINS - 2), 0.5])
    down, across = features[1, -4:-2].tolist(), features[1, -2:].tolist()
    assert (down, across) == (pytest.approx([0, 0], abs=1e-3), pytest.approx([4, 0], abs=1e-3))
    assert features[0, -4:].tolist() == pytest.approx([0] * 4)
    (gradient,) = torch.autograd.grad(features.square().sum(), image)
    assert torch.isfinite(gradient).all()
