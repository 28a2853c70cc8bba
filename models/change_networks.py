"""Builds the change networks by name, untrained, and again from their descriptions in plain JSON."""

from collections.abc import Sequence

import torch

from models.blocks.change import ChangeNetwork, NetworkConfig
from models.contract import Description
from models.networks.fc_ef import FCEF
from models.networks.fc_siam_conc import FCSiamConc
from models.networks.fc_siam_diff import FCSiamDiff
from models.networks.l_unet import LUNet, LUNetConfig
from models.networks.siamese_dcrn import SiameseDCRN, SiameseDCRNConfig

KINDS = ("siamese_dcrn", "l_unet", "fc_siam_diff", "fc_siam_conc", "fc_ef")


def build_network(
    kind: str,
    *,
    bands: int,
    widths: Sequence[int] = (16, 32, 64),
    recurrence: str = "convlstm",
    dropout: float = 0.1,
    seed: int = 0,
) -> ChangeNetwork:
    """An untrained network, determined by its arguments alone; the global random state is not changed.

    `recurrence` applies to siamese_dcrn only. Raises ValueError for an unknown kind or recurrence.
    """
    shape = {"bands": bands, "widths": tuple(widths), "dropout": dropout}
    chosen = {"recurrence": recurrence} if kind == "siamese_dcrn" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rebuild_network({"kind": kind, **shape, **chosen})


def rebuild_network(description: Description) -> ChangeNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    fields = dict(description)
    kind = fields.pop("kind")
    fields["widths"] = tuple(fields["widths"])
    if not fields["widths"] or min(fields["widths"]) < 1:
        raise ValueError(f"widths need at least one scale of at least one channel, got {fields['widths']}")
    match kind:
        case "siamese_dcrn":
            return SiameseDCRN(SiameseDCRNConfig(**fields))
        case "l_unet":
            return LUNet(LUNetConfig(**fields))
        case "fc_siam_diff":
            return FCSiamDiff(NetworkConfig(**fields))
        case "fc_siam_conc":
            return FCSiamConc(NetworkConfig(**fields))
        case "fc_ef":
            return FCEF(NetworkConfig(**fields))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the change network {kind!r}")
