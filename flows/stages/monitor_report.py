"""What a watch left, in numbers and on one page."""

from typing import Any

from flows.invocation import Invocation


def report(invocation: Invocation) -> dict[str, Any]:
    return {"message": "no report yet"}


def is_reported(invocation: Invocation) -> bool:
    return True


def product_lines(invocation: Invocation) -> list[str]:
    """Where things lie, for a person."""
    return [f"alerts:  {invocation.folder.alerts}"]
