"""Sites with labels in, training windows out: square, augmented, some of them drawn around change, the dates in either order.

Rare change (0.3 to 3.6 % of the pixels) is hardly met by windows drawn anywhere, so a share of them is drawn around changed
pixels. Every site gives equally many windows whatever its size, and what is drawn depends on (seed, epoch) alone.

Labels are uint8: 0 unchanged, 1 changed, 255 unknown. Shapes: T dates, C bands, H rows, W columns, B windows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.samples.sampling import augmented
from pipelines.tiles import Tile

CHANGED, UNKNOWN = 1, 255
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LabelledSite:
    """A site as the networks see it, with its truth. Arrays may be memory maps; nothing writes to them.

    `x_TCHW` float32, normalised, 0 where `valid_THW` (bool) is False; `days_T` float64 days since 1970-01-01, ascending;
    `label_HW` uint8.
    """

    name: str
    x_TCHW: np.ndarray
    valid_THW: np.ndarray
    days_T: np.ndarray
    label_HW: np.ndarray

    def __post_init__(self) -> None:
        T, _, H, W = self.x_TCHW.shape
        if self.valid_THW.shape != (T, H, W) or self.label_HW.shape != (H, W) or self.days_T.shape != (T,):
            raise ValueError(
                f"{self.name}: x has shape {self.x_TCHW.shape}, valid {self.valid_THW.shape}, label {self.label_HW.shape}, "
                f"days {self.days_T.shape}; expected one (T, C, H, W)"
            )

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.label_HW.shape[0], self.label_HW.shape[1]

    @cached_property
    def elapsed_T(self) -> np.ndarray:
        """Days since the date before, float32; 0 at the first."""
        return np.diff(self.days_T, prepend=self.days_T[:1]).astype(np.float32)


@dataclass(frozen=True, order=True)
class Region:
    """A part of a site, usually all of it, that is left out or learnt from as a whole."""

    site: str
    tile: Tile


def label_counts(label_HW: np.ndarray) -> tuple[int, int]:
    """(changed, unchanged) pixels whose label is known."""
    changed = int(np.count_nonzero(label_HW == CHANGED))
    return changed, int(np.count_nonzero(label_HW != UNKNOWN)) - changed


def check_classes(sites: Iterable[LabelledSite], regions: Sequence[Region], what: str, is_strip: bool = False) -> None:
    """Raises RequestError unless `regions` hold both changed and unchanged pixels; `what` names them in the message.

    `is_strip`: the regions are strips of sites that are too few to be left out, which no setting puts together.
    """
    by_name = {site.name: site for site in sites}
    counts = [label_counts(by_name[r.site].label_HW[r.tile.rows, r.tile.columns]) for r in regions]
    changed, unchanged = (sum(pair[k] for pair in counts) for k in (0, 1))
    if changed and unchanged:
        return
    there = "changed" if changed else "unchanged" if unchanged else None
    found = f"holds only the class {there!r}" if there else "holds no pixel whose label is known"
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


class ChangeWindows:
    """The windows of some regions, as `pipelines.learning.training` asks for them.

    `set_epoch` draws all of them anew: window i always comes from the same region (in turn), and the first `changed_share` of
    every region's windows are drawn around one of its changed pixels. `augment`: each is augmented by one of the 8 symmetries of
    the square. `reverse_time`: half of them, at random, are shown with their dates in reverse order. Without both and
    without `set_epoch` the windows are fixed. Where a region is smaller than a window, the rest is not valid and not labelled.
    """

    def __init__(
        self,
        sites: Mapping[str, LabelledSite],
        regions: Sequence[Region],
        *,
        window_px: int,
        windows: int,
        changed_share: float,
        augment: bool = False,
        reverse_time: bool = False,
        seed: int = 0,
        is_fixed: bool = False,
    ):
        if not regions:
            raise RequestError("there is no site to draw windows from: name at least one in source.sites")
        self.sites, self.regions = sites, tuple(regions)
        self.window_px, self.count, self.changed_share = window_px, windows, changed_share
        self.augment, self.reverse_time, self.seed, self.is_fixed = augment, reverse_time, seed, is_fixed
        self._changed: dict[int, np.ndarray] = {}
        self._drawn = self._draw(0)

    def __len__(self) -> int:
        return self.count

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(T, H, W) of each window: sites with equally many dates share batches."""
        size = self.window_px
        return [(len(self._site_of(i).days_T), size, size) for i in range(self.count)]

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
        chance = np.random.default_rng([self.seed, epoch])
        drawn = np.zeros((self.count, 4), np.int64)
        for index in range(self.count):
            drawn[index, :2] = self._draw_corner(index, chance)
            drawn[index, 2] = chance.integers(8) if self.augment else 0
            drawn[index, 3] = chance.integers(2) if self.reverse_time else 0
        return drawn

    def _draw_corner(self, index: int, chance: np.random.Generator) -> tuple[int, int]:
        which, turn = index % len(self.regions), index // len(self.regions)
        tile, size = self.regions[which].tile, self.window_px
        row_end, col_end = max(tile.row1 - size, tile.row0), max(tile.col1 - size, tile.col0)
        turns = -(-self.count // len(self.regions))
        changed = self._changed_of(which)
        if turn < round(self.changed_share * turns) and len(changed):
            row, col = changed[chance.integers(len(changed))] - chance.integers(size, size=2)
            return int(np.clip(row, tile.row0, row_end)), int(np.clip(col, tile.col0, col_end))
        return int(chance.integers(tile.row0, row_end + 1)), int(chance.integers(tile.col0, col_end + 1))

    def _changed_of(self, which: int) -> np.ndarray:
        """(changed pixels, 2) rows and columns in the site."""
        if which not in self._changed:
            region = self.regions[which]
            label_HW = self.sites[region.site].label_HW[region.tile.rows, region.tile.columns]
            self._changed[which] = np.argwhere(label_HW == CHANGED) + np.array([region.tile.row0, region.tile.col0])
        return self._changed[which]

    def _cut(self, index: int) -> dict[str, np.ndarray]:
        site, tile = self._site_of(index), self.regions[index % len(self.regions)].tile
        row, col, symmetry, is_reversed = (int(v) for v in self._drawn[index])
        size = self.window_px
        rows, columns = slice(row, min(row + size, tile.row1)), slice(col, min(col + size, tile.col1))
        label_HW = self._filled(np.asarray(site.label_HW[rows, columns]), UNKNOWN)
        x_TCHW, valid_THW = self._filled(site.x_TCHW[..., rows, columns]), self._filled(site.valid_THW[..., rows, columns])
        elapsed_T = site.elapsed_T
        if is_reversed:
            x_TCHW, valid_THW = x_TCHW[::-1], valid_THW[::-1]
            elapsed_T = np.concatenate([elapsed_T[:1], elapsed_T[:0:-1]])
        seen_HW = valid_THW[0] & valid_THW[-1]
        images = {
            "x_TCHW": x_TCHW,
            "valid_THW": valid_THW,
            "target": (label_HW == CHANGED).astype(np.float32)[None],
            "weight": ((label_HW != UNKNOWN) & seen_HW)[None],
        }
        return {name: np.ascontiguousarray(augmented(image, symmetry, True)) for name, image in images.items()} | {
            "elapsed_T": np.ascontiguousarray(elapsed_T)
        }

    def _filled(self, image: np.ndarray, value: int = 0) -> np.ndarray:
        """`image` (..., H, W) with `value` below and to the right, up to the window's size."""
        missing = [(0, 0)] * (image.ndim - 2) + [(0, self.window_px - side) for side in image.shape[-2:]]
        return np.pad(image, missing, constant_values=value) if any(after for _, after in missing) else np.asarray(image)
