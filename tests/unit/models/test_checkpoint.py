import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from models.baselines.pointwise import Climatology, DecayingAnomaly, Persistence
from models.checkpoint import FORECASTER, CheckpointDamaged
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster

METADATA = {"variables": ["rain", "ndvi"], "bands": ["B4", "B8"], "snapshot": "ABC", "code": "0.1.0", "nothing": None}


@pytest.fixture
def forecaster():
    scaling = Scaling((0.4, 0.6), (0.3, 0.2), ("log1p", "none"), 16.0)
    network = ConvLSTMSettings(hidden=(4, 3), peepholes=True, dropout=0.1)
    made = build_forecaster(DecayingAnomaly(decay_days=33.3), scaling, context=6, horizon=3, members=2, network=network)
    for member in made.members:
        torch.nn.init.normal_(member.head.weight)
    made.residual_scale_K.copy_(torch.tensor([0.9, 0.5, 0.1]))
    return made


def test_a_saved_forecaster_is_loaded_exactly(forecaster, tmp_path, make_window):
    window = make_window()
    digest = FORECASTER.save(forecaster, tmp_path / "model", METADATA)
    loaded, metadata = FORECASTER.load(tmp_path / "model")
    assert metadata == METADATA
    assert torch.equal(loaded.forecast(**window.arguments()), forecaster.forecast(**window.arguments()))
    assert not loaded.training
    assert (loaded.baseline, loaded.scaling, loaded.halo_px(9)) == (
        forecaster.baseline,
        forecaster.scaling,
        forecaster.halo_px(9),
    )
    assert FORECASTER.hash(tmp_path / "model") == digest
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_a_loaded_forecaster_can_be_trained_and_saved(forecaster, tmp_path, make_window):
    digest = FORECASTER.save(forecaster, tmp_path, METADATA)
    loaded, metadata = FORECASTER.load(tmp_path)
    assert FORECASTER.save(loaded, tmp_path / "again", metadata) == digest
    batch = {name: values[None] for name, values in loaded.prepare(**make_window().arguments()).items()}
    loaded.compute_member(0, batch).sum().backward()
    assert all(p.grad is not None for p in loaded.members[0].parameters())


@pytest.mark.parametrize("baseline", [None, Persistence(), Climatology(12.0), DecayingAnomaly(count=1)])
def test_every_baseline_is_restored(baseline, tmp_path):
    made = build_forecaster(baseline, Scaling((0.0,), (1.0,), ("none",), 1.0), context=2, horizon=1)
    FORECASTER.save(made, tmp_path, {})
    assert FORECASTER.load(tmp_path)[0].baseline == baseline


def test_the_hash_depends_on_tensors_and_metadata(forecaster, tmp_path):
    first = FORECASTER.save(forecaster, tmp_path, METADATA)
    assert FORECASTER.save(forecaster, tmp_path, METADATA) == first
    assert FORECASTER.save(forecaster, tmp_path, METADATA | {"snapshot": "DEF"}) != first
    forecaster.residual_scale_K[0] = 0.8
    assert FORECASTER.save(forecaster, tmp_path, METADATA) != first


def test_the_description_is_plain_json(forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path, METADATA)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["forecaster"]["baseline"] == {
        "kind": "decaying_anomaly",
        "count": 3,
        "decay_days": 33.3,
        "share": 0.9,
        "width_days": 15.0,
    }
    assert description["forecaster"]["members"][0]["hidden"] == [4, 3]


def test_a_missing_model_states_folder_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no forecaster in .*: model\.safetensors is missing; train one first"):
        FORECASTER.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_truncated_file_is_damaged(name, keep, forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path, METADATA)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointDamaged, match="train again"):
        FORECASTER.load(tmp_path)


def test_tensors_of_another_model_are_detected(forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path / "one", METADATA)
    forecaster.residual_scale_K[0] = 0.0
    FORECASTER.save(forecaster, tmp_path / "other", METADATA)
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(CheckpointDamaged, match=r"does not match the model\.safetensors in the same folder"):
        FORECASTER.load(tmp_path / "one")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 99),
        (("format",), "something"),
        (("forecaster",), {}),
        (("forecaster", "baseline"), {"kind": "oracle"}),
        (("forecaster", "baseline"), {"kind": "climatology", "colour": "red"}),
        (("forecaster", "scaling", "std"), [0.0, 1.0]),
        (("forecaster", "scaling", "std"), [float("nan"), 1.0]),
        (("forecaster", "scaling", "mean"), [1e30, 1.0]),
        (("forecaster", "scaling", "step_days"), "monthly"),
        (("forecaster", "horizon"), 4),
        (("forecaster", "horizon"), None),
        (("forecaster", "members"), []),
        (("forecaster", "members"), [{"hidden": [10**9]}]),
    ],
)
def test_a_mismatched_description_is_damaged(path, value, forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path, METADATA)
    description = json.loads((tmp_path / "model.json").read_text())
    place = description
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointDamaged, match="train again"):
        FORECASTER.load(tmp_path)


def test_a_huge_description_is_refused_before_memory_is_allocated(forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path, METADATA)
    description = json.loads((tmp_path / "model.json").read_text())
    for member in description["forecaster"]["members"]:
        member["hidden"] = [100_000]
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointDamaged, match="size mismatch"):
        FORECASTER.load(tmp_path)


def test_a_diverged_model_is_not_saved(forecaster, tmp_path):
    forecaster.members[1].head.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite \(training diverged\?\), first in members\.1\.head\.weight"):
        FORECASTER.save(forecaster, tmp_path / "model", METADATA)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e30])
def test_absurd_weights_are_refused_on_load(weight, forecaster, tmp_path):
    FORECASTER.save(forecaster, tmp_path, METADATA)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["members.0.head.weight"].flatten()[0] = weight
    content = to_bytes(tensors)
    (tmp_path / "model.safetensors").write_bytes(content)
    description = json.loads((tmp_path / "model.json").read_text())
    description["tensors_sha256"] = hashlib.sha256(content).hexdigest()  # made by a program, not by a damaged disk
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointDamaged, match=r"members\.0\.head\.weight holds NaN or values beyond 1e\+09\): train again"):
        FORECASTER.load(tmp_path)


def test_a_failed_write_leaves_the_old_model(forecaster, tmp_path, monkeypatch):
    digest = FORECASTER.save(forecaster, tmp_path, METADATA)
    forecaster.residual_scale_K[0] = 0.0
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        FORECASTER.save(forecaster, tmp_path, METADATA)
    assert FORECASTER.hash(tmp_path) == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
