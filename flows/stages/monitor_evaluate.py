"""How well it would have watched: false alarms, breaks put in by hand, change that the images show, beside the references."""

from typing import Any

from configs import build_monitor, build_pair_references
from flows.folder import finished, require, stage_key, write_json
from flows.invocation import Invocation
from pipelines.errors import RequestError
from pipelines.progress import Progress

ODD_YEAR = 2.0  # a year of the history whose threshold is so many times that of any other
FEW_STABLE = 0.25


def evaluate_monitoring(invocation: Invocation) -> dict[str, Any]:
    """False alarms, breaks put in by hand and seen change, for the detector and its references; the record of the stage."""
    folder, steps, run = invocation.folder, invocation.steps, invocation.run
    snapshot = require(folder, "ingest", "ingest")["snapshot"]
    parts = run.model_dump(mode="json")
    key = stage_key(snapshot=snapshot, **{name: parts[name] for name in ("variable", "monitoring", "evaluation")})
    record = finished(folder, "evaluate", key)
    if record is not None and folder.evaluation.exists():
        steps.skip("evaluate", "up to date")
        return {**record, "skipped": True}
    content = steps.do("evaluate", "judge on breaks put in by hand", lambda progress: judge(invocation, snapshot, progress))
    write_json(folder.evaluation, content)
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": content["detector"],
        "is_publishable": True,
        "message": content["sentence"],
    }
    write_json(folder.done("evaluate"), record)
    steps.log(content["sentence"])
    return record


def judge(invocation: Invocation, snapshot: str, progress: Progress) -> dict[str, Any]:
    """The content of evaluation.json: `methods` in flat figures, and all of it in `details`."""
    from pipelines.cube.store import open_cube
    from pipelines.monitoring.evaluation import calibrate_references, evaluate_monitor

    run = invocation.run
    dataset = open_cube(invocation.folder.cube_uri, snapshot)
    start_day = build_monitor.start_ns(run) / 86_400e9
    expected = build_monitor.build_expected_values(run, dataset, invocation.folder.state, progress)
    calibration, rests_on = build_monitor.calibrate(run, expected.value_model, dataset)
    shipped = f"{expected.name} {run.monitoring.test.kind}"
    x_NYX, valid_NYX, days_N = build_monitor.read_areas(run, dataset)
    detector = build_monitor.build_detector(run, expected.value_model, calibration)
    references, missing = {}, ""
    try:
        references = calibrate_references(
            build_monitor.build_references(run), x_NYX, valid_NYX, days_N, start_day, run.monitoring.test.false_alarms
        )
    except RequestError as e:  # the detector has a threshold set by hand, the references have none
        missing = f"without references: {e}"
        invocation.steps.log(f"evaluate: {missing}")
    references.pop(shipped.replace(" ", "_"), None)  # the same thing under two names
    settings = build_monitor.build_evaluation_settings(run)
    details = evaluate_monitor({shipped: detector, **references}, x_NYX, valid_NYX, days_N, start_day, settings)
    methods = {name: flat_figures(scores) for name, scores in details["methods"].items()}
    return {
        "shipped": shipped,
        "detector": detector.key,
        "snapshot": snapshot,
        "fallback": expected.fallback,
        "notes": [*([missing] if missing else []), *doubts(rests_on or {}, details)],
        "sentence": sentence_of(methods[shipped], run.evaluation.drops, seen_of(details["methods"][shipped])),
        "methods": methods,
        "calibrated_on": rests_on,
        "details": details,
        "pairs": build_pair_references.evaluate_pairs(run, dataset),
    }


def flat_figures(scores: dict[str, Any]) -> dict[str, Any]:
    """`false_alarms`, and per size of break `found_SIZE` and `delay_SIZE` (median days); None where not measured."""
    figures: dict[str, Any] = {"threshold": scores["threshold"]}
    figures["false_alarms"] = (scores.get("false_alarms") or {}).get("per_1000_px_year")
    for size, drop in (scores.get("drops") or {}).items():
        figures[f"found_{size}"] = drop["found"]
        figures[f"delay_{size}"] = drop["delay_days"][1] if drop["delay_days"] else None
    return figures


def seen_of(scores: dict[str, Any]) -> dict[str, int]:
    """How many pixels the images show to have changed, in all years, and how many of them were found."""
    years = [year for year in (scores.get("seen_in_images") or {}).values() if year["found"] is not None]
    return {"pixels": sum(y["pixels"] for y in years), "found": round(sum(y["pixels"] * y["found"] for y in years))}


def doubts(rests_on: dict[str, Any], details: dict[str, Any]) -> list[str]:
    """What a reader should know before believing the figures: a threshold that hangs on one year, little that is stable."""
    notes, years = [], sorted((rests_on.get("years") or {}).items(), key=lambda pair: pair[1])
    if len(years) > 1 and years[-1][1] > ODD_YEAR * years[-2][1]:
        (_, others), (odd, value) = years[-2:]
        notes.append(
            f"the threshold hangs on the year from {odd}, which alone reaches {value:.1f}, all others at most {others:.1f}: if "
            "something did change then, the watch is deafer than it need be (`monitoring.test.threshold` sets another)"
        )
    stable, monitored = details.get("stable_pixels") or 0, details.get("monitored_pixels") or 0
    if 0 < stable < FEW_STABLE * monitored:
        notes.append(f"only {stable} of {monitored} pixels look stable: false alarms and delays are measured on these alone")
    return notes


def sentence_of(figures: dict[str, Any], drops: list[float], seen: dict[str, int]) -> str:
    """What was measured, in a sentence."""
    if figures.get("false_alarms") is None:
        return "False alarms and delays could not be measured here: too few stable pixels."
    parts = [
        f"drops of {drop:g}: {figures[f'found_{drop:g}']:.0%} found, median delay {figures[f'delay_{drop:g}']:.0f} days"
        for drop in drops
        if figures.get(f"delay_{drop:g}") is not None
    ]
    if seen["pixels"]:
        parts.append(f"{seen['found']} of the {seen['pixels']} pixels whose change the images show: found")
    return f"{figures['false_alarms']:g} false alarms per 1000 stable pixels and year; " + "; ".join(parts) + "."
