"""The change networks by name: an untrained one from what a person chooses, and to and from plain JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from models.change_blocks import ChangeNetwork, NetworkConfig
from models.fc_ef import FCEF
from models.fc_siam_conc import FCSiamConc
from models.fc_siam_diff import FCSiamDiff
from models.l_unet import LUNet, LUNetConfig
from models.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig

KINDS: dict[str, tuple[Any, Any]] = {  # name -> network, config
    "siamese_dcrn": (SiameseDCRN, SiameseDCRNConfig),
    "l_unet": (LUNet, LUNetConfig),
    "fc_siam_diff": (FCSiamDiff, NetworkConfig),
    "fc_siam_conc": (FCSiamConc, NetworkConfig),
    "fc_ef": (FCEF, NetworkConfig),
}


def build_network(
    kind: str,
    *,
    bands: int,
    widths: Sequence[int] = (16, 32, 64),
    recurrence: str = "convlstm",
    dropout: float = 0.1,
    seed: int = 0,
) -> ChangeNetwork:
    """An untrained network, a function of its arguments alone; the global random state is left as it was.

    `recurrence` is that of siamese_dcrn; the others have no choice. Raises ValueError for an unknown kind or recurrence.
    """
    shape = {"bands": bands, "widths": tuple(widths), "dropout": dropout}
    chosen = {"recurrence": recurrence} if kind == "siamese_dcrn" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rebuild_network({"kind": kind, **shape, **chosen})


def describe_network(network: nn.Module) -> dict[str, Any]:
    """{"kind": ..., its config...}, plain JSON. Raises ValueError for another module."""
    for kind, (cls, _) in KINDS.items():
        if isinstance(network, cls):
            return {"kind": kind, **asdict(network.config)}
    raise ValueError(f"a change network is one of {', '.join(KINDS)}, not {type(network).__name__}")


def rebuild_network(description: dict[str, Any]) -> ChangeNetwork:
    """An untrained network of the build that `describe_network` described. Raises ValueError, TypeError or KeyError."""
    fields = dict(description)
    kind = fields.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"a change network is one of {', '.join(KINDS)}, not {kind!r}")
    fields["widths"] = tuple(fields["widths"])
    if not fields["widths"] or min(fields["widths"]) < 1:
        raise ValueError(f"widths need at least one scale of at least one channel, not {fields['widths']}")
    network, config = KINDS[kind]
    return network(config(**fields))  # type: ignore[no-any-return]
