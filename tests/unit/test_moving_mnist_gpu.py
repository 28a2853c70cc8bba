"""The published protocol of Moving MNIST in small; the whole needs a GPU."""

import gzip

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import moving_mnist_gpu as gpu  # noqa: E402
from benchmarks.moving_mnist import DIGIT, PARTS, SIDE, draw_sequences, stopping  # noqa: E402
from benchmarks.published_networks import PublishedSampling  # noqa: E402


@pytest.fixture
def digits(tmp_path):
    folder = tmp_path / "digits" / "mnist"
    folder.mkdir(parents=True)
    for name in PARTS.values():
        values = np.random.default_rng(0).integers(0, 255, (20, DIGIT, DIGIT), np.uint8)
        (folder / name).write_bytes(gzip.compress(bytes(16) + values.tobytes()))
    return folder


def test_digits_that_stop_are_at_the_border_for_a_frame_and_come_back():
    places = list(stopping(np.array([0.75]), np.array([0.1]), 6))
    np.testing.assert_allclose(np.concatenate(places), [0.85, 0.95, 1, 0.9, 0.8, 0.7], atol=1e-12)
    white = np.full((1, DIGIT, DIGIT), 255, np.uint8)
    stopped, reflected = (draw_sequences(white, 4, seed=0, stops=stops) for stops in (True, False))
    assert stopped.shape == reflected.shape
    assert (stopped != reflected).any()
    assert stopped[..., [0, SIDE - 1]].any()


@pytest.mark.parametrize(
    ("kind", "step", "chances"),
    [
        ("scheduled", 0, (1, 1)), ("scheduled", 25_000, (1, 0.5)), ("scheduled", 60_000, (1, 0)), ("reverse", 10, (0.5, 0.5)),
        ("reverse", 30_000, (1 - 0.5 * np.exp(-1), 0.4)), ("reverse", 60_000, (1, 0)),
    ],
)  # fmt: skip
def test_true_frames_are_shown_as_published(kind, step, chances):
    sampling, batch = PublishedSampling(kind), {"x_TCHW": torch.zeros(2, 5, 1, 1, 1), "target_KCHW": torch.zeros(2, 3, 1, 1, 1)}
    assert sampling.chances(step, 125_000) == pytest.approx(chances)
    drawn = sampling.drawn(batch, step, 125_000)
    assert {name: drawn[name].shape for name in ("shown_T", "shown_K")} == {"shown_T": (2, 5), "shown_K": (2, 3)}
    assert drawn["shown_T"].all() or chances[0] < 1
    assert not drawn["shown_K"].any() or chances[1] > 0


def test_convlstm_s_has_the_published_parameters_and_reads_its_forecasts():
    """15.0M of the table are 11.7M of the equations (tests of models.networks); ours has more inputs and biases."""
    inside = gpu.build(gpu.MEMBERS["ConvLSTM-S"].model).members[0].network
    first, *others = inside.stack.cells
    used = sum(one.gates.weight.numel() for one in others) + first.gates.weight[:, : 16 + 128].numel() + 128 * 16
    assert used == pytest.approx(11.7e6, rel=0.01)
    assert inside.reads_its_forecasts
    assert inside.decoupling is None


def test_the_check_trains_goes_on_and_scores(digits, monkeypatch):
    monkeypatch.setattr(gpu, "CHECKED", gpu.Protocol(train=8, validation=4, test=4, epochs=3))
    monkeypatch.setattr(gpu, "device_name", lambda: "CPU")
    member = gpu.MEMBERS["ConvLSTM-S"]
    monkeypatch.setitem(gpu.MEMBERS, "ConvLSTM-S", gpu.replace(member, model={**member.model, "hidden": [4]}))
    name, size, _, fell, *_ = (cell.strip() for cell in gpu.check("ConvLSTM-S", gpu.Protocol(), digits, None).split("|")[1:])
    assert (name, size) == ("ConvLSTM-S", "0.0M")
    assert fell.split(" to ")[0] != fell.split(" to ")[1]


def test_a_row_is_made_kept_and_shown(digits, tmp_path):
    protocol = gpu.Protocol(train=4, validation=2, test=2, epochs=1, batch=2)
    member = gpu.MEMBERS["SimVP-gSTA"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gpu.MEMBERS, "SimVP-gSTA", gpu.replace(member, model={**member.model, **member.small}))
        row = gpu.make_row("SimVP-gSTA", protocol, tmp_path, digits, None)
        (tmp_path / "simvp-gsta.json").write_text(gpu.json.dumps(row))
        assert gpu.kept_row("SimVP-gSTA", protocol, tmp_path) == row
    assert gpu.kept_row("SimVP-gSTA", protocol, tmp_path) is None  # of the published size
    assert row["ssim"] > row["ssim_1"] > 0
    text = "\n".join(gpu.lines_of(protocol, {"SimVP-gSTA": row}))
    assert "| SimVP-gSTA | 46.8M | 26.69 | 77.19 | 0.9402 |" in text
    assert f"| {row['mse']:.2f} | {row['mae']:.2f} |" in text
    assert "mnist_test_seq.npy was not given" in " ".join(text.split())


def test_published_test_sequences_are_read_and_others_refused(tmp_path):
    path = tmp_path / "mnist_test_seq.npy"
    stored = np.random.default_rng(0).integers(0, 255, (20, 3, SIDE, SIDE), np.uint8)
    np.save(path, stored)
    np.testing.assert_array_equal(gpu.read_sequences(path, 2), stored[:, :2].swapaxes(0, 1))
    with pytest.raises(SystemExit, match=r"at least 4, 64, 64\), got uint8 \(20, 3, 64, 64\)"):
        gpu.read_sequences(path, 4)
