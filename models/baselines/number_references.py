"""References of numbers: the mean, and a random forest, the field's standard. Both see rows of features.

Shapes: P samples, F features.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from models.baselines.class_references import TREES


class MeanOfNumbers:
    """The mean of what it has learnt from, for every sample."""

    def fit(self, features_PF: np.ndarray, answer_P: np.ndarray) -> MeanOfNumbers:
        self.mean = float(answer_P.mean())
        return self

    def predict(self, features_PF: np.ndarray) -> np.ndarray:
        return np.full(len(features_PF), self.mean)


class ForestOfNumbers:
    """Breiman 2001; scikit-learn's, with a third of the features at each split and leaves of at least 3 samples."""

    def __init__(self, seed: int = 0):
        self.forest = RandomForestRegressor(TREES // 3, max_features=1 / 3, min_samples_leaf=3, n_jobs=-1, random_state=seed)

    def fit(self, features_PF: np.ndarray, answer_P: np.ndarray) -> ForestOfNumbers:
        self.forest.fit(features_PF, answer_P)
        return self

    def predict(self, features_PF: np.ndarray) -> np.ndarray:
        answer_P: np.ndarray = self.forest.predict(features_PF)
        return answer_P
