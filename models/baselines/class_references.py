"""References of class maps: random forest, the field's standard, and the nearest mean curve. Both see rows of features.

Shapes: P pixels, F features (variables over time), K classes.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier

TREES = 300


class RandomForest:
    """Breiman 2001; scikit-learn's with `TREES` trees and its other defaults."""

    def __init__(self, classes: int, seed: int = 0):
        self.classes = classes
        self.forest = RandomForestClassifier(TREES, random_state=seed)

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> RandomForest:
        self.forest.fit(features_PF, class_P)
        return self

    def predict_probability(self, features_PF: np.ndarray) -> np.ndarray:
        """p_PK: votes; 0 for a class that it has not seen."""
        p_PK = np.zeros((len(features_PF), self.classes))
        p_PK[:, self.forest.classes_] = self.forest.predict_proba(features_PF)
        return p_PK

    def predict(self, features_PF: np.ndarray) -> np.ndarray:
        class_P: np.ndarray = self.predict_probability(features_PF).argmax(axis=1)
        return class_P


class NearestMeanCurve:
    """The class whose mean curve is nearest; features are scaled by their standard deviation, classes not seen are never said."""

    def __init__(self, classes: int):
        self.classes = classes

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> NearestMeanCurve:
        spread_F = features_PF.std(axis=0)
        self.scale_F = np.where(spread_F > 0, spread_F, 1.0)
        self.known_K = np.unique(class_P)
        self.curve_KF = np.stack([features_PF[class_P == k].mean(axis=0) for k in self.known_K])
        return self

    def predict(self, features_PF: np.ndarray) -> np.ndarray:
        gap_PK = np.stack([(((features_PF - curve_F) / self.scale_F) ** 2).sum(axis=1) for curve_F in self.curve_KF], axis=1)
        class_P: np.ndarray = self.known_K[gap_PK.argmin(axis=1)]
        return class_P


class MetadataForest(RandomForest):
    """For the shortcut audit: the classes weigh alike, as they do in balanced accuracy."""

    def __init__(self, classes: int, seed: int = 0):
        super().__init__(classes, seed)
        self.forest = RandomForestClassifier(TREES // 3, random_state=seed, class_weight="balanced")

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> MetadataForest:
        super().fit(features_PF, class_P)
        return self
