"""Sites with labels in, training windows out: square, augmented, some of them drawn around change, the dates in either order.

Rare change (0.3 to 3.6 % of the pixels) is hardly met by windows drawn anywhere, so a share of them is drawn around changed
pixels. Every site gives equally many windows whatever its size, and what is drawn depends on (seed, epoch) alone.

Labels are uint8: 0 unchanged, 1 changed, 255 unknown. Shapes: T dates, C bands, H rows, W columns, B windows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.change.metrics import CHANGED, UNCHANGED, UNKNOWN
from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import LabelledSite, Region
from pipelines.samples.sampling import Batch, augmented


def check_classes(sites: Iterable[LabelledSite], regions: Sequence[Region], what: str, is_strip: bool = False) -> None:
    """Raises RequestError unless `regions` hold both changed and unchanged pixels; `what` names them in the message.

    `is_strip`: the regions are strips of sites that are too few to be left out, which no setting puts together.
    """
    label_of = {site.name: site.label_HW for site in sites}
    labels = [label_of[region.site][region.tile.rows, region.tile.columns] for region in regions]
    classes = {"changed": CHANGED, "unchanged": UNCHANGED}
    there = [name for name, code in classes.items() if any((label_HW == code).any() for label_HW in labels)]
    if len(there) == len(classes):
        return
    found = f"holds only the class {there[0]!r}" if there else "holds no pixel whose label is known"
    names = ", ".join(dict.fromkeys(region.site for region in regions))
    remedy = (
        "add labelled sites: with three, whole sites are left out instead of strips; three are the practical minimum"
        if is_strip
        else "add sites, or put sites together in evaluation.groups"
    )
    raise RequestError(
        f"{what} ({names}) {found}, and both are needed to train and to evaluate; check labels.changed and labels.unchanged "
        f"against the codes in the files, {remedy}"
    )


@dataclass(frozen=True)
class WindowSettings:
    """How an epoch's `windows` are drawn: the first `changed_share` of every region's around one of its changed pixels.

    `augment`: each is augmented by one of the 8 symmetries of the square. `reverse_time`: half of them, at random, are shown
    with their dates in reverse order.
    """

    window_px: int
    windows: int
    changed_share: float
    augment: bool = False
    reverse_time: bool = False


class ChangeWindows:
    """The windows of some regions, as `pipelines.learning.training` asks for them.

    `set_epoch` draws all of them anew, unless they are fixed: window i always comes from the same region (in turn). Where a
    region is smaller than a window, the rest is not valid and not labelled. Raises RequestError without a region.
    """

    def __init__(
        self,
        sites: Mapping[str, LabelledSite],
        regions: Sequence[Region],
        settings: WindowSettings,
        seed: int = 0,
        is_fixed: bool = False,
    ):
        if not regions:
            raise RequestError("there is no site to draw windows from: name at least one in source.sites")
        self.sites, self.regions, self.settings, self.seed, self.is_fixed = sites, tuple(regions), settings, seed, is_fixed
        self._changed: dict[int, np.ndarray] = {}
        self._drawn = self._draw(0)

    def __len__(self) -> int:
        return self.settings.windows

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(T, H, W) of each window: sites with equally many dates share batches."""
        size = self.settings.window_px
        return [(len(self._site_of(i).days_T), size, size) for i in range(len(self))]

    def set_epoch(self, epoch: int) -> None:
        if not self.is_fixed:
            self._drawn = self._draw(epoch)

    def gather(self, indices: list[int]) -> Batch:
        """x_TCHW, valid_THW, elapsed_T, target (1, H, W; float32, 0 or 1) and weight (1, H, W; bool) of some windows, with B."""
        windows = [self._cut(index) for index in indices]
        return {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in windows[0]}

    def _site_of(self, index: int) -> LabelledSite:
        return self.sites[self.regions[index % len(self.regions)].site]

    def _draw(self, epoch: int) -> np.ndarray:
        """(windows, 4) int64: first row, first column, symmetry, whether the dates are swapped."""
        chance, settings = np.random.default_rng([self.seed, epoch]), self.settings
        drawn = np.zeros((len(self), 4), np.int64)
        for index in range(len(self)):
            drawn[index, :2] = self._draw_corner(index, chance)
            drawn[index, 2] = chance.integers(8) if settings.augment else 0
            drawn[index, 3] = chance.integers(2) if settings.reverse_time else 0
        return drawn

    def _draw_corner(self, index: int, chance: np.random.Generator) -> tuple[int, int]:
        turn, which = divmod(index, len(self.regions))
        tile, size = self.regions[which].tile, self.settings.window_px
        row_end, col_end = max(tile.rows.stop - size, tile.rows.start), max(tile.columns.stop - size, tile.columns.start)
        turns, changed = -(-len(self) // len(self.regions)), self._changed_of(which)
        if turn < round(self.settings.changed_share * turns) and len(changed):
            row, col = changed[chance.integers(len(changed))] - chance.integers(size, size=2)
            return int(np.clip(row, tile.rows.start, row_end)), int(np.clip(col, tile.columns.start, col_end))
        return int(chance.integers(tile.rows.start, row_end + 1)), int(chance.integers(tile.columns.start, col_end + 1))

    def _changed_of(self, which: int) -> np.ndarray:
        """(changed pixels, 2) rows and columns in the site."""
        if which not in self._changed:
            site, tile = self._site_of(which), self.regions[which].tile
            corner = np.array([tile.rows.start, tile.columns.start])
            self._changed[which] = np.argwhere(site.label_HW[tile.rows, tile.columns] == CHANGED) + corner
        return self._changed[which]

    def _cut(self, index: int) -> dict[str, np.ndarray]:
        site, tile = self._site_of(index), self.regions[index % len(self.regions)].tile
        row, col, symmetry, is_reversed = (int(v) for v in self._drawn[index])
        size = self.settings.window_px
        rows, columns = slice(row, min(row + size, tile.rows.stop)), slice(col, min(col + size, tile.columns.stop))
        label_HW = self._filled(site.label_HW[rows, columns], UNKNOWN)
        x_TCHW, valid_THW = self._filled(site.x_TCHW[..., rows, columns]), self._filled(site.valid_THW[..., rows, columns])
        elapsed_T = site.elapsed_T
        if is_reversed:
            x_TCHW, valid_THW = x_TCHW[::-1], valid_THW[::-1]
            elapsed_T = np.concatenate([elapsed_T[:1], elapsed_T[:0:-1]])
        weight_HW = (label_HW != UNKNOWN) & valid_THW[0] & valid_THW[-1]
        target_HW = (label_HW == CHANGED).astype(np.float32)
        images = {"x_TCHW": x_TCHW, "valid_THW": valid_THW, "target": target_HW[None], "weight": weight_HW[None]}
        arrays = {name: augmented(image, symmetry, True) for name, image in images.items()} | {"elapsed_T": elapsed_T}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def _filled(self, image: np.ndarray, value: int = 0) -> np.ndarray:
        """`image` (..., H, W) with `value` below and to the right, up to the window's size."""
        missing = [(0, 0)] * (image.ndim - 2) + [(0, self.settings.window_px - side) for side in image.shape[-2:]]
        return np.pad(image, missing, constant_values=value) if any(after for _, after in missing) else np.asarray(image)
