"""The section of a forecast's report on its covariates: what they are, how much of them is known, what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.products.json_values import Json
from pipelines.products.section import Column, Section, Table

WITH, WITHOUT = "gradient_boosting", "boosting_without_covariates"


def covariates_section(measured: Sequence[Json], details: Json) -> Section:
    """measured: as of `Covariates.measure`. Empty without covariates."""
    if not measured:
        return Section("covariates", "")
    columns = [
        Column("name", "covariate", "text"), Column("kind", "kind", "text"), Column("summary", "of each step", "text"),
        Column("unit", "unit", "text"), Column("mean", "mean"), Column("std", "standard deviation"),
        Column("covers", "covers", "text"), Column("missing", "missing", "share"),
    ]  # fmt: skip
    rows = [{**one, "std": 0.0} if one.get("is_constant") else one for one in measured]
    note = "Mean, deviation and missing share are of the training part. What is missing gets the mean and is marked as unknown."
    table = Table("", columns, rows, note)
    return Section("covariates", "What it was given beside the images", worth(details), tables=[table])


def worth(details: Json) -> list[str]:
    """How the error of gradient boosting with covariates compares with its own without them."""
    found = []
    validation = details.get("choice", {}).get("errors", {})
    test = {name: one.get("overall", {}).get("mae") for name, one in details.get("metrics", {}).items()}
    for part, errors in (("validation", validation), ("test", test)):
        if (given := errors.get(WITH)) is not None and (without := errors.get(WITHOUT)):
            change = given / without - 1
            size = f"{abs(change) * 100:.1f} % {'smaller' if change < 0 else 'larger'}"
            found.append(f"on the {part} part {size} ({given:.4f} against {without:.4f})")
    return [f"With covariates the mean absolute error of gradient boosting is {', '.join(found)}."] if found else []
