"""Features of a whole sequence for references that read rows of numbers: its mean and its spread over time, as small pictures."""

import numpy as np
import torch
from torch import Tensor

MOST_PX = 14  # along each axis


def time_features(x_BTCHW: Tensor, valid_BT: Tensor) -> np.ndarray:
    """features_BF float32: mean over the valid frames, and of several their standard deviation, of at most 14 x 14 pixels.

    Of volumes (z, y, x) the slices count as bands.
    """
    x = x_BTCHW if x_BTCHW.ndim == 5 else x_BTCHW.flatten(2, 3)
    weight = valid_BT[:, :, None, None, None].to(x.dtype)
    count = weight.sum(1).clamp(min=1)
    mean = (x * weight).sum(1) / count
    parts = [mean]
    if x.shape[1] > 1:
        parts.append((((x - mean[:, None]).square() * weight).sum(1) / count).sqrt())
    joined = torch.cat(parts, dim=1)
    size = (min(MOST_PX, joined.shape[-2]), min(MOST_PX, joined.shape[-1]))
    features: np.ndarray = torch.nn.functional.adaptive_avg_pool2d(joined, size).flatten(1).numpy()
    return features


MOST_FEATURES = 1024


def all_features(x_BTCHW: Tensor, valid_BT: Tensor) -> np.ndarray:
    """features_BF float32: every value of every frame where these are at most 1024, else as `time_features`.

    Values of frames that are not valid are interpolated in time between the valid ones, and held at both ends.
    """
    if x_BTCHW[0].numel() > MOST_FEATURES:
        return time_features(x_BTCHW, valid_BT)
    x, steps = x_BTCHW.flatten(2).numpy().astype(np.float32), np.arange(x_BTCHW.shape[1])
    filled = x.copy()
    for one, seen_T in zip(filled, valid_BT.numpy(), strict=True):
        for column in one.T if not seen_T.all() else ():
            column[~seen_T] = np.interp(steps[~seen_T], steps[seen_T], column[seen_T])
    return filled.reshape(len(filled), -1)
