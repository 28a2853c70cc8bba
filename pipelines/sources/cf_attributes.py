"""Attributes of HDF5 and netCDF-4 files as text and numbers."""

from __future__ import annotations

import re

import h5py
import numpy as np

from pipelines.errors import SceneRefused

MOST_VALUES = 1000  # that mean missing
NOTHING = ("", "none", "n/a", "na")  # attributes that say that there is no such value


def stated_numbers(data: h5py.Dataset, key: str) -> list[float]:
    """The numbers of an attribute, integers as int; those of a text too. Raises SceneRefused(too-large, wrong-scale)."""
    values = np.asarray(data.attrs[key]).reshape(-1) if key in data.attrs else np.empty(0)
    if values.size > MOST_VALUES:
        detail = f"{data.name!r} states {values.size} values as {key}, the limit is {MOST_VALUES}; correct the attribute"
        raise SceneRefused(str(data.name), "too-large", detail)
    if values.dtype.kind in "iuf":
        numbers: list[float] = values.tolist()
        return numbers
    text = text_attribute(data, key).strip()
    words = [word for word in re.split(r"[\s,;{}\[\]()]+", text) if word]
    try:
        return [] if text.lower() in NOTHING else [float(word) for word in words]
    except ValueError:
        raise wrong_attribute(data, f"states {text[:80]!r} as {key}, which is no number; correct the attribute") from None


def packing(data: h5py.Dataset) -> tuple[float, float]:
    """(scale_factor, add_offset). Raises SceneRefused(wrong-scale) for what is not one number."""
    found = []
    for key, otherwise in (("scale_factor", 1.0), ("add_offset", 0.0)):
        numbers = list(dict.fromkeys(stated_numbers(data, key)))
        if len(numbers) > 1:
            raise wrong_attribute(data, f"states {len(numbers)} values as {key}, expected one; write the planes with one packing")
        found.append(float((*numbers, otherwise)[0]))
    return found[0], found[1]


def wrong_attribute(data: h5py.Dataset, detail: str) -> SceneRefused:
    return SceneRefused(str(data.name), "wrong-scale", f"{data.name!r} {detail}")


def numbers_in_attribute(item: h5py.HLObject, key: str) -> list[float]:
    values = np.asarray(item.attrs[key]).reshape(-1)
    return [float(value) for value in values] if values.dtype.kind in "iuf" else []


def text_attribute(item: h5py.HLObject, key: str) -> str:
    """The attribute as text; "" if it is missing or not text."""
    value = item.attrs.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    return value if isinstance(value, str) else ""


def float_attribute(item: h5py.HLObject, key: str) -> float | None:
    """The attribute as a number; None if it is missing or not a number."""
    values = numbers_in_attribute(item, key) if key in item.attrs else []
    return values[0] if values else None
