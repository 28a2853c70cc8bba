"""What a schema cannot say: values that do not fit each other, and inputs that are not there.

Every check gets the valid sections of a run (None where a section is wrong in itself) and returns findings, so that
one call can report all mistakes of a file.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from configs.schema import (
    EvaluationConfig,
    FolderSource,
    GridConfig,
    NetcdfSource,
    PredictionConfig,
    SamplesConfig,
    Source,
    SplitConfig,
    StackSource,
    VariableConfig,
)
from configs.yaml_positions import Key

RELATIVE_TO = "inputs are relative to the config, data/... and runs/... to the working folder"

# what strptime reads and a file name can hold; %Z, %c, %x... depend on the locale
DATE_DIRECTIVES = "YmdHMSfjybB"


@dataclass(frozen=True)
class Finding:
    """A mistake before it is given its line: the key it belongs to, the problem, the remedy."""

    key: Key
    problem: str
    remedy: str = ""


def check_sections(sections: dict[str, Any]) -> list[Finding]:
    """Findings over everything but the files; `sections` maps the fields of Run to their values or None."""
    source, samples, split = sections.get("source"), sections.get("samples"), sections.get("split")
    findings = [*check_source(source, sections.get("quality"))] if source is not None else []
    if samples is not None:
        findings += [*_check_variables(samples, source), *_check_steps(samples)]
    if split is not None:
        findings += _check_split(split)
    if sections.get("grid") is not None:
        findings += check_grid(sections["grid"])
    if sections.get("evaluation") is not None:
        findings += _check_evaluation(sections["evaluation"])
    if sections.get("prediction") is not None:
        findings += _check_prediction(sections["prediction"], samples)
    return findings


def check_source(source: Source, quality: Any) -> Iterator[Finding]:
    """Findings for what a source says, without its files."""
    yield from check_bands(source)
    yield from check_crs(("source", "crs"), source.crs)
    if isinstance(source, FolderSource):
        yield from _check_pattern(source)
    if isinstance(source, StackSource):
        yield from _check_stack(source, quality)


def check_bands(source: Source) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, band in enumerate(source.bands):
        if band.name in seen:
            yield Finding(("source", "bands", index), f"band {band.name!r} is listed twice", "give every band its own name")
        seen[band.name] = index
        if band.valid_range and band.valid_range[0] >= band.valid_range[1]:
            yield Finding(("source", "bands", index, "valid_range"), "the first value must be smaller than the second")
    if source.valid_range and source.valid_range[0] >= source.valid_range[1]:
        yield Finding(("source", "valid_range"), "the first value must be smaller than the second")
    if source.transform and source.transform[0] * source.transform[4] == source.transform[1] * source.transform[3]:
        remedy = "order: a, b, c, d, e, f with x = a*column + b*row + c and y = d*column + e*row + f"
        yield Finding(("source", "transform"), "this affine has no area", remedy)


def check_crs(key: Key, crs: str | None) -> Iterator[Finding]:
    if crs is None:
        return
    from rasterio.env import Env  # 0.2 s, and only for configs that name a CRS
    from rasterio.errors import CRSError

    from pipelines.grid import parse_crs

    try:
        with Env():  # inside an Env, PROJ's own message goes to logging instead of stderr
            parse_crs(crs)
    except CRSError:
        yield Finding(key, f"PROJ does not know the CRS {crs!r}", "an EPSG code such as EPSG:32635, a PROJ string or WKT")


def _check_pattern(source: FolderSource) -> Iterator[Finding]:
    key: Key = ("source", "pattern")
    fields = re.findall(r"\{([^{}:]*)(?::([^{}]*))?\}", source.pattern)
    names = [name for name, _ in fields]
    if "date" not in names:
        yield Finding(key, "the pattern has no {date}, so scenes have no date", "for example {date:%Y%m%d}_{band}.tif")
    for name, form in fields:
        if name not in ("date", "band"):
            near = difflib.get_close_matches(name, ["date", "band"], n=1)
            remedy = f"did you mean {{{near[0]}}}?" if near else "only {date:...} and {band} are read; * stands for the rest"
            yield Finding(key, f"unknown field {{{name}}}", remedy)
        elif name == "date":
            yield from _check_date_form(key, form)
    if re.sub(r"\{[^{}]*\}", "", source.pattern).count("{") or re.sub(r"\{[^{}]*\}", "", source.pattern).count("}"):
        yield Finding(key, "a brace is not closed", "for example {date:%Y%m%d}_{band}.tif")
    if names.count("date") > 1 or names.count("band") > 1:
        yield Finding(key, "a field stands twice in the pattern", "replace the second one with *")


def _check_date_form(key: Key, form: str) -> Iterator[Finding]:
    directives = re.findall(r"%(.?)", form)
    wrong = [d for d in directives if d not in DATE_DIRECTIVES]
    known = "%Y %m %d %H %M %S %f %j (day of year) %y %b %B"
    for directive in wrong:
        yield Finding(key, f"unknown date directive %{directive}", f"Python's strptime directives: {known}")
    if not directives:
        yield Finding(key, "{date} needs its form", "for example {date:%Y%m%d} for 20200630")
    elif not wrong:
        has = set(directives)
        if not has & {"Y", "y"} or not ("j" in has or (has & {"m", "b", "B"})):
            yield Finding(key, f"{{date:{form}}} does not name a day", "it needs a year and a day: %Y%m%d, or %Y%j")


def _check_stack(source: StackSource, quality: Any) -> Iterator[Finding]:
    requested = {band.source or band.name for band in source.bands}
    extra = {quality.band} if quality is not None else set()
    for name in sorted((requested | extra) - set(source.files)):
        yield Finding(("source", "files"), f"no file is named for band {name!r}", f"add `{name}: FILE.tif`")
    for name in sorted(set(source.files) - requested - extra):
        remedy = f"add it to bands, or take it out; bands are {', '.join(sorted(requested))}"
        yield Finding(("source", "files", name), f"{name!r} is not one of the bands", remedy)


def _check_variables(samples: SamplesConfig, source: Source | None) -> Iterator[Finding]:
    bands = [band.name for band in source.bands] if source is not None else None
    names: set[str] = set()
    for index, variable in enumerate(samples.variables):
        key: Key = ("samples", "variables", index)
        if variable.name in names:
            yield Finding((*key, "name"), f"variable {variable.name!r} is listed twice")
        names.add(variable.name)
        yield from check_variable(key, variable, bands)


def check_variable(key: Key, variable: VariableConfig, bands: list[str] | None) -> Iterator[Finding]:
    """Findings for one variable at `key`; `bands` are the source's, None if that section is wrong."""
    needs = 1 if variable.formula == "band" else 2
    if len(variable.bands) != needs:
        form = f"formula {variable.formula!r} takes {needs} band{'s' if needs > 1 else ''}, found {len(variable.bands)}"
        yield Finding((*key, "bands"), form, "formulas: band (1), normalized_difference (2), ratio (2)")
    if variable.valid_range and variable.valid_range[0] >= variable.valid_range[1]:
        yield Finding((*key, "valid_range"), "the first value must be smaller than the second")
    for position, band in enumerate(variable.bands):
        if bands is not None and band not in bands:
            yield Finding((*key, "bands", position), f"unknown band {band!r}", _closest(band, bands, "the source's bands are"))


def _check_steps(samples: SamplesConfig) -> Iterator[Finding]:
    steps = samples.steps
    if steps.mode == "regular" and steps.every_days is None:
        yield Finding(("samples", "steps"), "regular steps need every_days", "for example every_days: 16")
    if steps.mode == "observed":
        for name in ("every_days", "tolerance_days"):
            if getattr(steps, name) is not None:
                yield Finding(
                    ("samples", "steps", name), "has no meaning for observed steps", "add mode: regular, or take it out"
                )
    if steps.every_days and steps.tolerance_days and steps.tolerance_days > steps.every_days:
        yield Finding(("samples", "steps", "tolerance_days"), "is longer than a step", "at most every_days; half of it is usual")


def _check_split(split: SplitConfig) -> Iterator[Finding]:
    if split.test_from <= split.validation_from:
        problem = f"test_from ({split.test_from:%Y-%m-%d}) must be after validation_from ({split.validation_from:%Y-%m-%d})"
        yield Finding(("split", "test_from"), problem, "time runs training, validation, test")
    elif (split.test_from - split.validation_from).days < split.gap_days:
        yield Finding(
            ("split", "gap_days"), "the gap swallows the validation period", "a shorter gap or an earlier validation_from"
        )
    if split.test_fraction + split.validation_fraction >= 1:
        problem = "test_fraction + validation_fraction leave no block to train on"
        yield Finding(("split", "test_fraction"), problem, "together they must stay under 1")
    if 2 * split.buffer_px >= split.block_px:
        problem = f"a buffer of {split.buffer_px} on both sides leaves nothing of a block of {split.block_px} pixels"
        yield Finding(("split", "buffer_px"), problem, f"at most {(split.block_px - 1) // 2}")


def check_grid(grid: GridConfig) -> Iterator[Finding]:
    yield from check_crs(("grid", "crs"), grid.crs)
    left, bottom, right, top = grid.bounds
    if left >= right or bottom >= top:
        yield Finding(("grid", "bounds"), f"{list(grid.bounds)} has no area", "order: left, bottom, right, top in CRS units")


def _check_evaluation(evaluation: EvaluationConfig) -> Iterator[Finding]:
    for index, name in enumerate(evaluation.must_beat):
        if name not in evaluation.baselines:
            problem = f"{name!r} must be beaten but is not among the baselines that are computed"
            yield Finding(("evaluation", "must_beat", index), problem, f"add {name} to evaluation.baselines")


def _check_prediction(prediction: PredictionConfig, samples: SamplesConfig | None) -> Iterator[Finding]:
    dates = prediction.dates
    if dates is None:
        return
    key: Key = ("prediction", "dates")
    if not dates:
        yield Finding(key, "the list is empty", "name at least one date, or leave it out for the next steps")
    if list(dates) != sorted(set(dates)):
        yield Finding(key, "the dates must rise and not repeat")
    if dates and prediction.issue != "latest" and min(dates) <= prediction.issue:
        problem = f"{min(dates):%Y-%m-%d} is not after the issue date {prediction.issue:%Y-%m-%d}"
        yield Finding(key, problem, "a forecast looks ahead: later dates, or an earlier issue")
    if samples is not None and len(dates) > samples.horizon:
        problem = f"{len(dates)} dates, but the model forecasts {samples.horizon} steps"
        yield Finding(key, problem, "fewer dates, or a longer samples.horizon (and train again)")


# ---------------------------------------------------------------- files


def check_inputs(source: Source, quality: Any = None) -> list[Finding]:
    """Findings for what the source names on disk: files that are not there, a pattern that fits none, bands that none has."""
    path = Path(source.path)
    if isinstance(source, NetcdfSource):
        return list(_missing_file(("source", "path"), path))
    if not path.is_dir():
        problem = f"{path} is not a folder" if path.exists() else f"no folder at {path}"
        return [Finding(("source", "path"), problem, _path_remedy(path))]
    findings: list[Finding] = []
    if isinstance(source, StackSource):
        for band, name in source.files.items():
            findings += _missing_file(("source", "files", band), path / name)
        findings += _missing_file(("source", "dates"), path / source.dates)
    if isinstance(source, FolderSource) and not any(_check_pattern(source)):
        findings += _check_names(source, quality)
    return findings


def _check_names(source: FolderSource, quality: Any) -> Iterator[Finding]:
    """Whether the pattern fits file names below the folder, their dates can be read, and every band is in some name."""
    from pipelines.sources.dates import parse_date
    from pipelines.sources.file_names import propose_pattern
    from pipelines.sources.folder import list_files
    from pipelines.sources.pattern import FilePattern

    pattern = FilePattern(source.pattern)
    paths = list_files(Path(source.path))
    fitting = [name for path in paths if (name := pattern.match(path))]
    if any(parse_date(name.date_text, pattern.date_format) for name in fitting):
        if pattern.has_band:
            yield from _check_bands_in_names(source, quality, sorted({name.band for name in fitting}))
    elif paths:  # without any file the scenes may still be on their way; the source says so
        naming = propose_pattern(paths)
        remedy = f"try {naming.pattern}" if naming and naming.pattern != source.pattern else "write it as the names are"
        undated = next((name for path in paths if (name := pattern.match(path, any_date=True))), None)
        if undated:
            problem = f"no date in the names has the form {pattern.date_format!r}; the first is {undated.date_text!r}"
        else:
            shown = ", ".join(repr(path) for path in paths[:3])
            problem = f"it fits none of the {len(paths)} files below {source.path}; there are: {shown}"
        yield Finding(("source", "pattern"), problem, remedy)


def _check_bands_in_names(source: FolderSource, quality: Any, there: list[str]) -> Iterator[Finding]:
    requested: dict[Key, str] = {("source", "bands", i): band.source or band.name for i, band in enumerate(source.bands)}
    if quality is not None:
        requested["quality", "band"] = quality.band
    for key, name in requested.items():
        if name not in there:
            close = _closest(name, there, "the names hold")
            yield Finding(key, f"no file below {source.path} is of band {name!r}", close)


def _missing_file(key: Key, path: Path) -> Iterator[Finding]:
    if path.is_dir():
        yield Finding(key, f"{path} is a folder, expected a file")
    elif not path.exists():
        yield Finding(key, f"no file at {path}", _path_remedy(path))


def _path_remedy(path: Path) -> str:
    if "nrt-0.2.1" in path.parts:
        return "`driftline demo` fetches the demo's data"
    parent = path.parent
    if parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in islice(parent.iterdir(), 5000)], n=1)
        if near:
            return f"did you mean {parent / near[0]}?"
    return f"check the path: {RELATIVE_TO}"


def _closest(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(known)}"
