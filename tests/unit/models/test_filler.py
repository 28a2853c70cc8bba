"""Networks that fill hidden dates: nothing hidden reaches them, they are stored, and layers that fit are handed on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.change_detector import build_network
from models.filler import FILLER, Filler, build_filler, copy_layers, plain_network
from models.segmenter import build_segmenter

NETWORKS: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 4},
    "l_tae": {"hidden": 8, "heads": 2},
    "u_tae": {"widths": (4, 8), "heads": 2},
    "unet_convgru": {"widths": (4, 8)},
    "siamese_dcrn": {"widths": (4, 8)},
    "l_unet": {"widths": (4, 8)},
}


def described(kind: str, bands: int = 2) -> dict[str, Any]:
    return {"kind": kind, "bands": bands, "dropout": 0.0, **NETWORKS[kind]}


def batch_of(dates: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_BTHW = torch.rand(2, dates, 8, 8, generator=generator) < 0.3
    hidden_BTHW[:, 1] = True
    years_BT = torch.linspace(0, 0.8, dates).expand(2, dates)
    return {"x_TCHW": torch.randn(2, dates, 2, 8, 8, generator=generator), "valid_THW": ~hidden_BTHW, "years_T": years_BT}


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_hidden_does_not_reach_the_network(kind: str) -> None:
    model, batch = build_filler(described(kind), features=4, seed=0).eval(), batch_of()
    x, hidden = batch["x_TCHW"].requires_grad_(), ~batch["valid_THW"][:, :, None].expand(-1, -1, 2, -1, -1)
    value = model.compute_member(0, batch)
    assert value.shape == x.shape
    value.square().sum().backward()
    assert x.grad is not None
    assert (x.grad[hidden] == 0).all()
    assert x.grad[~hidden].abs().max() > 0
    other = torch.where(hidden, x.detach() + 1e3, x.detach())
    assert torch.equal(model.compute_member(0, {**batch, "x_TCHW": other}), value)
    later = model.compute_member(0, {**batch, "years_T": batch["years_T"] + 0.3})
    assert not torch.equal(later, value)  # it is asked for dates


def test_a_filler_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    for kind in ("l_tae", "siamese_dcrn"):
        model = build_filler(described(kind), features=4, seed=1)
        model.set_statistics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        FILLER.save(model.eval(), tmp_path / kind, {})
        again, _ = FILLER.load(tmp_path / kind)
        assert isinstance(again, Filler)
        assert torch.equal(again.compute_member(0, batch_of()), model.compute_member(0, batch_of()))


@pytest.mark.parametrize("kind", ["l_tae", "unet_convgru", "siamese_dcrn"])
def test_layers_that_fit_are_copied_and_the_rest_stays(kind: str) -> None:
    filler = build_filler(described(kind), features=4, seed=0)
    own = build_segmenter(described(kind), ["a", "b"], members=1, seed=5).members[0]
    before = {name: value.clone() for name, value in plain_network(own).state_dict().items()}
    layers = copy_layers(plain_network(own), plain_network(filler.members[0]))
    after, theirs = plain_network(own).state_dict(), plain_network(filler.members[0]).state_dict()
    assert all(torch.equal(after[name], theirs[name]) for name in layers["copied"])
    assert all(torch.equal(after[name], before[name]) for name in layers["untrained"])
    assert {name.rpartition("head")[1] for name in layers["untrained"]} == {"head"}
    assert layers["ignored"] == layers["untrained"]
    assert set(layers["copied"]) | set(layers["untrained"]) == set(after)


def test_a_detector_and_a_class_map_of_one_kind_share_their_layers_and_other_kinds_none() -> None:
    change = build_network("siamese_dcrn", bands=2, widths=(4, 8), dropout=0.0, seed=1)
    filler = build_filler(described("siamese_dcrn"), features=4, seed=0)
    assert copy_layers(change, plain_network(filler.members[0]))["untrained"] == ["decoder.head.weight", "decoder.head.bias"]
    gru = build_segmenter(described("gru"), ["a", "b"], members=1, seed=0)
    assert copy_layers(plain_network(gru.members[0]), plain_network(filler.members[0]))["copied"] == []
