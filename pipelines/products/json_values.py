"""JSON values as programs read them."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]  # an object, for instance of summary.json or evaluation.json, or what becomes one


def plain(value: Any) -> Any:
    """`value` as JSON holds it, at any depth: dates ISO 8601 in UTC, numpy numbers as Python's, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "strftime"):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value == value else None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
