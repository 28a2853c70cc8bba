"""The line under a table that says whether a criterion is met."""


def verdict(what: str, value: float, *, at_least: float | None = None, at_most: float | None = None, unit: str = "x") -> str:
    """`what: value (required: ...): met` or `MISSED`; one of the two bounds is given. NaN is a miss."""
    is_met = value >= at_least if at_least is not None else at_most is not None and value <= at_most
    bound = f"at least {at_least:g}{unit}" if at_least is not None else f"at most {at_most:g}{unit}"
    return f"{what}: {value:.3g}{unit} (required: {bound}): {'met' if is_met else 'MISSED'}"
