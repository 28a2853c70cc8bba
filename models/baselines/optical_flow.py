"""Optical flow: the last frame, moved on along the motion between the last two; the usual rule to beat for next frames.

Shapes as in `pointwise`. Motion is that of dense optical flow of scikit-image, for images only: ILK (Le Besnerais & Champagnat
2005, https://doi.org/10.1109/ICIP.2005.1529706) or TV-L1 (Zach et al. 2007).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from models.baselines.pointwise import Persistence, context_arrays, context_days
from models.contract import Halo


@dataclass(frozen=True)
class OpticalFlow:
    """Semi-Lagrangian extrapolation: y(p) = x(p - lead * v(p)), v the motion between the last two frames of the context.

    One motion for all channels, of their mean. Where a pixel comes from outside the image or from one that is not valid, and
    where the context has fewer than two frames, the forecast is persistence. `method`: of the flow; `radius`: of ILK's window.
    """

    method: Literal["ilk", "tvl1"] = "ilk"
    radius: int = 7

    @property
    def stride_px(self) -> tuple[int, ...]:
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        return None

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW; see `Persistence.forecast` for the arguments."""
        y_KCHW = Persistence().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        seen_T = [t for t in np.flatnonzero(context_T.numpy() >= 0) if bool(valid_NHW[int(context_T[t])].any())]
        if len(seen_T) < 2:
            return y_KCHW
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        days_T = context_days(days_N, context_T)
        before, last = (int(t) for t in seen_T[-2:])
        frame_CHW, valid_HW = x_TCHW[last].cpu().numpy(), valid_THW[last].cpu().numpy()
        back_2HW = self.displacement(filled(x_TCHW[last], valid_THW[last]), filled(x_TCHW[before], valid_THW[before]))
        rows_HW, columns_HW = np.meshgrid(*map(np.arange, valid_HW.shape), indexing="ij")
        for k, day in enumerate(target_days_K.tolist()):
            steps = (day - float(days_T[last])) / (float(days_T[last]) - float(days_T[before]))
            source_2HW = np.stack([rows_HW, columns_HW]) + steps * back_2HW
            moved_CHW = np.stack([ndimage.map_coordinates(plane, source_2HW, order=1, mode="nearest") for plane in frame_CHW])
            is_known_HW = ndimage.map_coordinates(valid_HW.astype(np.float32), source_2HW, order=1, mode="constant") > 0.999
            y_KCHW[k] = torch.where(torch.from_numpy(is_known_HW), torch.from_numpy(moved_CHW).to(y_KCHW.dtype), y_KCHW[k])
        return y_KCHW

    def displacement(self, last_HW: np.ndarray, before_HW: np.ndarray) -> np.ndarray:
        """(2, H, W) rows and columns from a pixel of the last frame to where it was in the frame before; finite."""
        from skimage.registration import optical_flow_ilk, optical_flow_tvl1

        low, high = min(last_HW.min(), before_HW.min()), max(last_HW.max(), before_HW.max())
        if high <= low:
            return np.zeros((2, *last_HW.shape))
        scaled = [(frame_HW - low) / (high - low) for frame_HW in (last_HW, before_HW)]
        flow = optical_flow_ilk(*scaled, radius=self.radius) if self.method == "ilk" else optical_flow_tvl1(*scaled)
        limit = min(last_HW.shape) / 4  # a larger one is no motion that two frames can show
        bounded: np.ndarray = np.clip(np.nan_to_num(flow), -limit, limit)
        return bounded


def filled(x_CHW: Tensor, valid_HW: Tensor) -> np.ndarray:
    """(H, W) mean of the channels, float32, the mean of the valid pixels where there is none."""
    mean_HW, valid = x_CHW.mean(dim=0).cpu().numpy(), valid_HW.cpu().numpy()
    return np.where(valid, mean_HW, mean_HW[valid].mean() if valid.any() else 0).astype(np.float32)
