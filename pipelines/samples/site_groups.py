"""Which sites are left out together, and which networks that takes.

A method is measured on sites that it has not seen: a group of sites is left out, everything (networks, calibration, fusion,
threshold) is chosen on the other groups, and the left-out group is scored once. Among the other groups every network leaves
one more out, so that calibration and threshold too rest on sites that the network has not seen. A network without the
groups {g, h} serves both: it calibrates on h where g is scored, and on g where h is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.errors import RequestError
from pipelines.samples.decoded_sites import Region
from pipelines.tiles import Box

LEAST_GROUPS = 3  # one to score, one to calibrate on, one to learn from
STRIPS = 4
STRIP_GAP_PX = 30  # between the strips of a site, so that windows do not share their surroundings


@dataclass(frozen=True)
class Grouping:
    """`groups`: the regions of each group; `names`: a name for each. `note` is empty, or says why sites were cut up."""

    groups: tuple[tuple[Region, ...], ...]
    names: tuple[str, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.groups)

    def outside(self, left_out: Sequence[int]) -> list[Region]:
        """The regions of all other groups."""
        return [region for g, group in enumerate(self.groups) if g not in left_out for region in group]

    def describe(self) -> dict[str, list[str]]:
        """group -> its sites, or its strips of them."""
        return {
            name: [f"{region.site} {region.tile.key}" if self.note else region.site for region in group]
            for name, group in zip(self.names, self.groups, strict=True)
        }


def group_sites(
    shapes: Mapping[str, tuple[int, int]], together: Sequence[Sequence[str]], *, least_px: int, gap_px: int
) -> Grouping:
    """The grouping of sites (name -> shape_yx): those named in one list of `together` are one group, the others one each.

    With fewer than three groups nothing can be left out twice. Then every site is cut into four strips across its longer side,
    `gap_px` apart, and a group is the same strip of every site. Neighbouring strips are more alike than other sites are, so
    this flatters: the grouping's `note` says so.

    Raises RequestError: a name twice or unknown in `together`, or fewer than three groups and strips thinner than `least_px`.
    """
    groups = _named_groups(list(shapes), together)
    if len(groups) >= LEAST_GROUPS:
        whole = {name: Region(name, Box.whole(shape)) for name, shape in shapes.items()}
        return Grouping(tuple(tuple(whole[n] for n in group) for group in groups), tuple("+".join(group) for group in groups))
    strips = [cut_strips(name, shape, least_px, gap_px, len(groups)) for name, shape in shapes.items()]
    note = (
        f"{len(groups)} group{'s' if len(groups) > 1 else ''} of sites ({', '.join(shapes)}) cannot be left out one by one, "
        f"which takes {LEAST_GROUPS}: every site was cut into {STRIPS} strips instead. Strips of one site are more alike than "
        "other sites are, so these scores are better than what another site will give"
    )
    return Grouping(tuple(zip(*strips, strict=True)), tuple(f"strip {k + 1}" for k in range(STRIPS)), note)


def count_networks(sites: Sequence[str], together: Sequence[Sequence[str]]) -> int:
    """How many groups `group_sites` makes, so how many networks a detector has; names that are no site do not count."""
    groups = _named_groups(list(sites), [[name for name in group if name in sites] for group in together])
    return len(groups) if len(groups) >= LEAST_GROUPS else STRIPS


def _named_groups(sites: list[str], together: Sequence[Sequence[str]]) -> list[list[str]]:
    group_of: dict[str, Sequence[str]] = {}
    for name, group in ((name, members) for members in together for name in members):
        if name not in sites:
            raise RequestError(
                f"evaluation.groups names {name!r}, which is no site of this run; the sites are {', '.join(sites)}"
            )
        if name in group_of:
            raise RequestError(f"evaluation.groups names {name!r} twice; a site can be left out with one group only")
        group_of[name] = group
    members = {tuple(other for other in sites if other in group_of.get(name, [name])): None for name in sites}
    return [list(group) for group in members]


def cut_strips(name: str, shape_yx: tuple[int, int], least_px: int, gap_px: int, groups: int) -> list[Region]:
    """Four strips of a site across its longer side, `gap_px` apart. Raises RequestError where they come out too thin."""
    (height, width), long = shape_yx, max(shape_yx)
    size = (long - (STRIPS - 1) * gap_px) // STRIPS
    if size < least_px:
        raise RequestError(
            f"there are {groups} groups of sites, and leaving one out takes {LEAST_GROUPS}; {name} has {height} x "
            f"{width} pixels, too few for {STRIPS} strips instead ({size} px each, {least_px} are needed): add labelled "
            "sites, three that do not share a group in evaluation.groups are the practical minimum. A smaller training.window_px "
            "is seldom enough: each strip needs changed and unchanged pixels"
        )
    starts = [k * (size + gap_px) for k in range(STRIPS)]
    spans = [(start, long if start == starts[-1] else start + size) for start in starts]
    return [Region(name, Box.from_edges((*span, 0, width) if height >= width else (0, height, *span))) for span in spans]
