"""The container of networks of whole sequences: statistics, calibration, numbers, joining, and the checkpoint."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.sequence_model import SEQUENCE_MODEL, SequenceModel, build_sequence_model, join_members
from tests.networks_under_test import BANDS, CASES, CLASSES, FRAME, SEQUENCES

NAMES = ("A-lines", "B-lines", "effusion")
NETWORK = {"kind": "cnn_gru", "bands": BANDS, **FRAME, "widths": [3, 4], "hidden": 4, "bidirectional": True}


def made(seed: int = 0, members: int = 2, *, is_number: bool = False) -> SequenceModel:
    return build_sequence_model(NETWORK, NAMES, members, seed, is_number=is_number).eval()


def batch(samples: int = 3, steps: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 5 + 2 * torch.randn(samples, steps, BANDS, *FRAME.values(), generator=generator)
    valid = torch.ones(samples, steps, dtype=torch.bool)
    valid[1, 2] = False
    return {"x_TCHW": x, "valid_T": valid}


def test_members_are_determined_by_the_seed():
    one, again, other = made(), made(), made(1)
    for name, values in one.state_dict().items():
        assert torch.equal(again.state_dict()[name], values)
    weights = [network.head.weight for network in (*one.networks, *other.networks)]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 4


def test_a_member_reads_physical_values_by_its_own_statistics():
    model, known = made(), batch()
    x, valid = known["x_TCHW"], known["valid_T"]
    mean, std = torch.tensor([5.0, 4.0]), torch.tensor([2.0, 0.5])
    model.set_statistics(1, mean, std)
    standardised = (x - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(model.predict(1, x, valid), model.members[1](standardised, valid), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.predict(0, x, valid), model.members[0](x, valid), atol=1e-6, rtol=0)
    counts = x.clamp(min=0).round()
    assert torch.equal(model.predict(1, counts.to(torch.uint8), valid), model.predict(1, counts, valid))


def test_training_has_a_gradient_and_prediction_none():
    model, known = made(), batch()
    y = model.compute_member(0, known)
    assert y.requires_grad
    torch.testing.assert_close(model.predict(0, known["x_TCHW"], known["valid_T"]), y, atol=1e-6, rtol=0)
    assert not model.predict(0, known["x_TCHW"], known["valid_T"]).requires_grad


def test_probabilities_are_calibrated_for_each_member():
    model, logit = made(), np.array([[0.0, np.log(4), 0.0], [0, 0, 0]], np.float32)
    model.set_calibration(1, 2.0)
    np.testing.assert_allclose(model.calibrated(0, logit), [[1 / 6, 4 / 6, 1 / 6], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(model.calibrated(1, logit), [[1 / 4, 2 / 4, 1 / 4], [1 / 3] * 3], rtol=1e-6)


def test_numbers_are_in_their_own_units():
    model, target = made(is_number=True), torch.tensor([[10.0, -3, 7]])
    model.set_target_statistics(1, torch.tensor([8.0, 0, 5]), torch.tensor([2.0, 3, 4]))
    assert model.standardised(1, target).tolist() == [[1, -1, 0.5]]
    assert model.calibrated(1, model.standardised(1, target).numpy()).tolist() == target.tolist()
    assert model.calibrated(0, target.numpy()).tolist() == target.tolist()


@pytest.mark.parametrize("is_number", [False, True])
def test_joined_members_and_a_loaded_model_answer_as_before(is_number, tmp_path):
    learners, known = [made(seed, 1, is_number=is_number) for seed in range(2)], batch()
    for i, learner in enumerate(learners):
        learner.set_statistics(0, torch.full((BANDS,), 5.0 + i), torch.full((BANDS,), 2.0))
        if is_number:
            learner.set_target_statistics(0, torch.full((CLASSES,), 3.0 + i), torch.ones(CLASSES))
        else:
            learner.set_calibration(0, 1.5 + i)
    joined = join_members(learners)
    SEQUENCE_MODEL.save(joined, tmp_path, {"note": 1})
    loaded, metadata = SEQUENCE_MODEL.load(tmp_path)
    assert metadata == {"note": 1}
    assert (loaded.outputs, loaded.is_number, loaded.halo_px(3)) == (NAMES, is_number, None)
    for i, learner in enumerate(learners):
        raw = learner.predict(0, known["x_TCHW"], known["valid_T"])
        for model in (joined, loaded):
            assert torch.equal(model.predict(i, known["x_TCHW"], known["valid_T"]), raw)
            assert (model.calibrated(i, raw.numpy()) == learner.calibrated(0, raw.numpy())).all()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind in SEQUENCES])
def test_every_network_can_be_a_member(name, tmp_path):
    network = CASES[name].build()
    model = SequenceModel([network], NAMES).eval()
    SEQUENCE_MODEL.save(model, tmp_path, {})
    shape = 2, CASES[name].steps(3), *network.frame_shape
    x, valid = torch.ones(shape), torch.ones(shape[:2], dtype=torch.bool)
    model.set_statistics(0, torch.full((BANDS,), 0.5), torch.ones(BANDS))
    assert torch.equal(SEQUENCE_MODEL.load(tmp_path)[0].predict(0, x - 0.5, valid), model.predict(0, x, valid))


def test_what_does_not_fit_is_refused():
    network = CASES["cnn_gru"].build()
    expected = r"expected members for the same bands and 2 classes \(a, b\), got "
    with pytest.raises(ValueError, match=expected + "2 bands, 3 outputs"):
        SequenceModel([network], ("a", "b"))
    with pytest.raises(ValueError, match=expected + "no members"):
        SequenceModel([], ("a", "b"))
    model, numbers, known = made(), made(is_number=True), batch()
    with pytest.raises(ValueError, match=r"expected \(samples, steps, 2 bands, ...\), got \(3, 4, 1, 9, 12\)"):
        model.predict(0, known["x_TCHW"][:, :, :1], known["valid_T"])
    with pytest.raises(ValueError, match="expected means and deviations of 2 bands, got \\(3,\\) and \\(2,\\)"):
        model.set_statistics(0, torch.zeros(3), torch.ones(2))
    with pytest.raises(ValueError, match=r"the standard deviation of bands \[1\] is not above 0"):
        model.set_statistics(0, torch.zeros(2), torch.tensor([1.0, 0]))
    with pytest.raises(ValueError, match="a temperature must be above 0, got 0"):
        model.set_calibration(0, 0)
    with pytest.raises(ValueError, match=r"numbers \(A-lines, B-lines, effusion\) have no temperature"):
        numbers.set_calibration(0, 1.5)
    with pytest.raises(ValueError, match=r"classes \(A-lines, .*\) have no mean and standard deviation"):
        model.set_target_statistics(0, torch.zeros(3), torch.ones(3))
