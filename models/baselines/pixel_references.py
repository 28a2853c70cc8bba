"""References of binary images: independent pixels, a mixture of them, and each pixel by logistic regression on all before it.

Each is fitted with `fit(x_PHW, held_out_VHW)` and gives nats_N, minus the logarithm of the probability of each image. The second
argument chooses when to stop, where something is to be chosen. Shapes: P, V, N images, H rows, W columns, D = H W pixels, K
components. x is 0 or 1.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp

from models.contract import seeded
from models.pixel_model import image_nats, nats_per_image


def flat(x_NHW: np.ndarray) -> np.ndarray:
    """x_ND float32."""
    x_ND: np.ndarray = x_NHW.reshape(len(x_NHW), -1).astype(np.float32)
    return x_ND


class IndependentPixels:
    """Each pixel is 1 with the share of training images in which it is; one image of each value is added (Laplace 1814)."""

    def fit(self, x_PHW: np.ndarray, held_out_VHW: np.ndarray) -> IndependentPixels:
        p_D = (flat(x_PHW).sum(axis=0, dtype=np.float64) + 1) / (len(x_PHW) + 2)
        self.off_D, self.gain_D = np.log1p(-p_D), np.log(p_D) - np.log1p(-p_D)
        return self

    def nats(self, x_NHW: np.ndarray) -> np.ndarray:
        nats_N: np.ndarray = -(flat(x_NHW) @ self.gain_D + self.off_D.sum())
        return nats_N


class BernoulliMixture:
    """p(x) = sum over k of w_k product over pixels of Bernoulli(x_i; p_ki), by EM from random images (Bishop 2006, 9.3.3).

    Ends after `most` rounds, or where the held-out images gain less than 0.01 nats per image.
    """

    def __init__(self, components: int, seed: int = 0, most: int = 60):
        self.components, self.seed, self.most = components, seed, most

    def fit(self, x_PHW: np.ndarray, held_out_VHW: np.ndarray) -> BernoulliMixture:
        x_PD, count = flat(x_PHW), self.components
        chosen_K = np.random.default_rng(self.seed).choice(len(x_PD), count, replace=len(x_PD) < count)
        p_KD, weight_K = 0.25 + 0.5 * x_PD[chosen_K].astype(np.float64), np.full(count, 1 / count)
        last = np.inf
        for _ in range(self.most):
            self._set(p_KD, weight_K)
            reached = float(self.nats(held_out_VHW).mean())
            if last - reached < 0.01:
                break
            last = reached
            log_PK = self._joint(x_PD)
            share_PK = np.exp(log_PK - logsumexp(log_PK, axis=1, keepdims=True)).astype(np.float32)
            size_K = share_PK.sum(axis=0, dtype=np.float64)
            p_KD = ((share_PK.T @ x_PD).astype(np.float64) + 1) / (size_K[:, None] + 2)
            weight_K = (size_K + 1) / (size_K + 1).sum()
        return self

    def _set(self, p_KD: np.ndarray, weight_K: np.ndarray) -> None:
        self.gain_KD = (np.log(p_KD) - np.log1p(-p_KD)).astype(np.float32)
        self.off_K = np.log1p(-p_KD).sum(axis=1) + np.log(weight_K)

    def _joint(self, x_ND: np.ndarray) -> np.ndarray:
        """log of weight and probability, (N, K)."""
        joint_NK: np.ndarray = (x_ND @ self.gain_KD.T).astype(np.float64) + self.off_K
        return joint_NK

    def nats(self, x_NHW: np.ndarray) -> np.ndarray:
        nats_N: np.ndarray = -logsumexp(self._joint(flat(x_NHW)), axis=1)
        return nats_N


class LogisticPixels:
    """Each pixel by logistic regression on all pixels before it: the fully visible belief network (Frey et al. 1996).

    One masked matrix, learnt by Adam in steps of 100 images; the epoch with the fewest nats on held-out images is kept, and five
    worse ones in a row end it, or so many steps.
    """

    def __init__(self, seed: int = 0, most_steps: int = 12_000, learning_rate: float = 1e-3):
        self.seed, self.most_steps, self.learning_rate = seed, most_steps, learning_rate

    def fit(self, x_PHW: np.ndarray, held_out_VHW: np.ndarray) -> LogisticPixels:
        self.weight_DD, self.bias_D = seeded(self.seed, lambda: self._learnt(flat(x_PHW), held_out_VHW))
        return self

    def _learnt(self, x_PD: np.ndarray, held_out_VHW: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = x_PD.shape[1]
        p_D = torch.from_numpy((x_PD.mean(axis=0) * len(x_PD) + 1) / (len(x_PD) + 2))
        weight_DD, bias_D = torch.zeros(pixels, pixels, requires_grad=True), torch.logit(p_D).requires_grad_()
        optimizer = torch.optim.Adam([weight_DD, bias_D], lr=self.learning_rate)
        best, least, worse = (weight_DD, bias_D), np.inf, 0
        for _ in range(-(-self.most_steps // -(-len(x_PD) // 100))):
            for rows in torch.randperm(len(x_PD)).split(100):
                x_BD = torch.from_numpy(x_PD[rows.numpy()])
                optimizer.zero_grad()
                logit_BD = torch.addmm(bias_D, x_BD, weight_DD.tril(-1).T)
                nats_per_image(logit_BD[:, None], x_BD[:, None], torch.ones(len(x_BD))).backward()
                optimizer.step()
            self.weight_DD, self.bias_D = weight_DD.detach().tril(-1), bias_D.detach().clone()
            reached, worse = float(self.nats(held_out_VHW).mean()), worse + 1
            if reached < least:
                best, least, worse = (self.weight_DD, self.bias_D), reached, 0
            if worse == 5:
                break
        return best

    def nats(self, x_NHW: np.ndarray) -> np.ndarray:
        x_ND = torch.from_numpy(flat(x_NHW))
        logit_ND = torch.addmm(self.bias_D, x_ND, self.weight_DD.T)
        nats_N: np.ndarray = image_nats(logit_ND[:, None], x_ND[:, None]).numpy()
        return nats_N
