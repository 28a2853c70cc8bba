"""Reads of a cube by xarray that say what is damaged. Apart from `integrity`, since an ingest works without xarray."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import InMemoryDataStore
from xarray.backends.zarr import ZarrArrayWrapper, ZarrStore
from xarray.core import indexing
from zarr.types import AnyArray

from pipelines.cube.integrity import Contents, box_text, chunks_of, damaged_chunks, naming_damage
from pipelines.errors import ArtefactDamaged


class NamedReads(ZarrArrayWrapper):
    """An array of pixels, for xarray. A chunk that cannot be read is an ArtefactDamaged with date, scene and box."""

    __slots__ = ("uri", "when")

    def __init__(self, array: AnyArray, uri: str, when: list[str]):
        super().__init__(array)  # type: ignore[no-untyped-call]
        self.uri, self.when = uri, when

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        try:
            with naming_damage(self.uri):
                return super().__getitem__(key)  # type: ignore[no-untyped-call]
        except ArtefactDamaged as e:
            array: AnyArray = self._array
            damaged = next(damaged_chunks(array, chunks_of(array, key.tuple)), None)
            if damaged is None:
                raise
            place, why = damaged
            where = f"{array.name.strip('/')} of {self.when[place[0]]}, {box_text(array, place)}"
            remedy = (
                f"run `driftline check {self.uri} --repair CONFIG`, which reads damaged scenes again, then `driftline run CONFIG`"
            )
            raise ArtefactDamaged(f"the cube at {self.uri} is damaged: {where} ({why}); {remedy}") from e


def decoded(contents: Contents) -> xr.Dataset:
    """As `xarray.open_zarr` of its store with `consolidated=False, chunks=None, mask_and_scale=False`, columns in memory."""
    stored: Any = ZarrStore(contents.root, mode="r", use_zarr_fill_value_as_mask=False)
    variables = dict(stored.get_variables())
    for name, values in contents.columns.items():
        variables[name] = variables[name].copy(data=values)
    in_memory = InMemoryDataStore(variables, stored.get_attrs())  # type: ignore[no-untyped-call]
    return xr.decode_cf(in_memory, mask_and_scale=False)


def with_named_reads(dataset: xr.Dataset, root: zarr.Group, names: tuple[str, ...], uri: str) -> xr.Dataset:
    """The dataset, of which the arrays `names` say what is damaged where they are read."""
    scenes = zip(dataset["time"].values, dataset["scene_id"].values, strict=True)
    when = [f"{np.datetime_as_string(time, 's')} (scene {scene})" for time, scene in scenes]
    named = {}
    for name in names:
        array = root[name]
        assert isinstance(array, zarr.Array)
        lazy: Any = indexing.LazilyIndexedArray(NamedReads(array, uri, when))
        cached = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))  # type: ignore[no-untyped-call]  # as xarray does
        known = dataset[name].variable
        named[name] = xr.Variable(known.dims, cached, known.attrs, known.encoding, fastpath=True)
    return dataset.assign(named)
