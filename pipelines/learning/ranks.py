"""What the processes of a training on several devices know of each other."""

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.learning.epoch_batches import FILLED_UP, Batch


def gathered(parts: list[Tensor], world: int) -> list[Tensor]:
    """The parts of all ranks."""
    if world == 1:
        return parts
    found: list[list[Tensor]] = [[]] * world
    dist.all_gather_object(found, parts)
    return [one for own in found for one in own]


def of_whole_batch(values: Tensor, batch: Batch) -> Tensor:
    """`values` of the samples of all ranks, each sample once; gradients go to those of this rank only.

    So every rank has the loss of the whole batch, whatever the loss, and the sum of their gradients is that of the whole.
    """
    kept = torch.cat(_of_ranks(~batch[FILLED_UP]))
    parts = _of_ranks(values)
    parts[dist.get_rank()] = values
    return torch.cat(parts)[kept]


def _of_ranks(values: Tensor) -> list[Tensor]:
    own = values.detach().contiguous()
    sent = own.to(torch.uint8) if own.dtype == torch.bool else own  # not every backend sends booleans
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, sent)
    return [part.to(own.dtype) for part in parts]
