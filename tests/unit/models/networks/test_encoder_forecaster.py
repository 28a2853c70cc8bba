import pytest
import torch

from models.blocks.forecast import TIME_FEATURES, hide_frames
from models.networks.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig


def network(seed: int = 0, **changed) -> EncoderForecaster:
    """A network with changed parameters, so that the last layer is not zero."""
    torch.manual_seed(seed)
    settings = {"outputs": 2, "frame_channels": 3, "future_channels": 2, "hidden": (5, 4)} | changed
    made = EncoderForecaster(EncoderForecasterConfig(**settings))
    torch.nn.init.normal_(made.head.weight)
    return made.eval()


def inputs(made: EncoderForecaster, batch: int = 2, context: int = 4, horizon: int = 3, shape_yx=(13, 11), dtype=torch.float32):
    config, generator = made.config, torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        "frames_BTCHW": random(batch, context, config.frame_channels, *shape_yx),
        "valid_BTHW": (random(batch, context, *shape_yx) > -0.5).to(dtype),
        "time_BTF": random(batch, context, TIME_FEATURES),
        "elapsed_BT": random(batch, context).abs(),
        "futures_BKCHW": random(batch, horizon, config.future_channels, *shape_yx),
        "time_BKF": random(batch, horizon, TIME_FEATURES),
        "elapsed_BK": random(batch, horizon).abs(),
    }


def encode(made: EncoderForecaster, known, steps: slice, state=None):
    names = ("frames_BTCHW", "valid_BTHW", "time_BTF", "elapsed_BT")
    return made.encode(*(known[name][:, steps] for name in names), state)


def test_an_untrained_network_predicts_zero():
    made = EncoderForecaster(EncoderForecasterConfig(1, 2, 0, hidden=(4,)))
    y = made(**inputs(made))
    assert y.shape == (2, 3, 1, 13, 11)
    assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("hidden", [(3,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("future_channels", [0, 2])
def test_outputs_are_equal_without_gradients(hidden, peepholes, future_channels):
    made = network(hidden=hidden, peepholes=peepholes, future_channels=future_channels)
    known = inputs(made)
    with torch.no_grad():
        fast = made(**known)
    torch.testing.assert_close(fast, made(**known).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_encoding_date_by_date_equals_the_whole_context(plain):
    made = network()
    known = inputs(made)
    with torch.set_grad_enabled(plain):
        whole = encode(made, known, slice(None))
        state = None
        for t in range(4):
            state = encode(made, known, slice(t, t + 1), state)
        for one, other in zip(whole, state, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("plain", [False, True])
def test_decoding_date_by_date_equals_the_whole_horizon(plain):
    made = network()
    known = inputs(made)
    names = ("futures_BKCHW", "time_BKF", "elapsed_BK")
    with torch.set_grad_enabled(plain):
        state = encode(made, known, slice(None))
        whole, after = made.decode(state, *(known[name] for name in names))
        parts = []
        for k in range(3):
            part, state = made.decode(state, *(known[name][:, k : k + 1] for name in names))
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=0)
        torch.testing.assert_close(state[-1][0], after[-1][0], atol=1e-6, rtol=0)


def test_the_initial_state_is_not_changed():
    made = network()
    known = inputs(made)
    with torch.no_grad():
        state = encode(made, known, slice(0, 2))
        before = [(h.clone(), c.clone()) for h, c in state]
        encode(made, known, slice(2, 4), state)
    for (h, c), (h_before, c_before) in zip(state, before, strict=True):
        assert torch.equal(h, h_before)
        assert torch.equal(c, c_before)


@pytest.mark.parametrize(
    ("hidden", "kernel", "context", "horizon"), [((3,), 3, 4, 3), ((3, 2), 3, 3, 2), ((2,), 5, 2, 2), ((2, 2), 1, 3, 3)]
)
def test_the_halo_is_the_exact_receptive_field(hidden, kernel, context, horizon):
    made = network(hidden=hidden, kernel=kernel).double()
    halo, _ = made.halo_px(context + horizon)
    size = 2 * halo + 9
    centre = size // 2
    known = inputs(made, batch=1, context=context, horizon=horizon, shape_yx=(size, size), dtype=torch.float64)
    known["valid_BTHW"] = torch.ones_like(known["valid_BTHW"])
    frames = known["frames_BTCHW"].requires_grad_()
    made(**known)[0, -1, :, centre, centre].sum().backward()
    rows = torch.nonzero(frames.grad.abs().sum(dim=(0, 1, 2, 4))).flatten()
    assert (int(rows.min()), int(rows.max())) == (centre - halo, centre + halo)


def test_every_parameter_gets_a_gradient():
    made = network(peepholes=True)
    made(**inputs(made)).square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_samples_of_a_batch_do_not_mix():
    made = network()
    known = inputs(made, batch=3)
    with torch.no_grad():
        together = made(**known)
        alone = made(**{name: values[1:2] for name, values in known.items()})
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=0)


def test_dropout_is_applied_in_training_only_even_without_gradients():
    made = network(dropout=0.5)
    known = inputs(made)
    with torch.no_grad():
        assert torch.equal(made(**known), made(**known))
        made.train()
        assert not torch.allclose(made(**known), made(**known))


def test_a_hidden_frame_equals_a_cloudy_one():
    torch.manual_seed(0)
    frames, valid = torch.ones(64, 10, 2, 3, 3), torch.ones(64, 10, 3, 3)
    hidden_frames, hidden_valid = hide_frames(frames, valid, 0.25)
    kept = hidden_valid[:, :, 0, 0]
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert abs(float(kept.mean()) - 0.75) < 0.06
    assert torch.equal(hidden_frames[:, :, 0, 0, 0], kept)
