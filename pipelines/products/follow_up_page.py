"""`PATIENT.html`: a patient's lesions in a page that works without network: tables, pictures, decisions to be saved as CSV."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.files import write_text
from pipelines.follow_up import decisions
from pipelines.follow_up.analysis import FollowedPatient, lesion_rows
from pipelines.follow_up.decisions import DecidedLesion, Decision
from pipelines.products.follow_up_pictures import COLOURS, changed_ml, draw_lesions, draw_volumes
from pipelines.products.report import template
from pipelines.wording import counted

MOST_PICTURES = 24  # of an interval
GIVEN = "Lesions of each visit were given as masks."
PROPOSED = (
    "Lesions of each visit are proposed: bright parts of the first visit, and what changes between visits. No reader has "
    "marked them."
)
FIGURES = {  # of registration -> (what it is called, how it is written)
    "information": ("mutual information", "{:.3f}"),
    "mirrored": ("the same, mirrored", "{:.3f}"),
    "edge_overlap": ("overlap of edges", "{:.2f}"),
    "residual_mm": ("shift left over [mm]", "{:.2f}"),
    "rotation_deg": ("rotation [degrees]", "{:.2f}"),
    "field": ("share of the brain seen", "{:.1%}"),
}


def write_patient_page(
    found: FollowedPatient, registration: Mapping[str, Any], run: str, change_share: float, folder: str, path: Path
) -> None:
    """Writes the page. `registration`: how the visits came onto one grid, as the ingest records it; `folder`: where decisions
    are read from. Raises StorageFull."""
    rows = lesion_rows(found)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".page-") as drafts:
        intervals = [_interval(found, rows, n, Path(drafts)) for n in range(len(found.intervals))]
        chart = Path(drafts) / "volumes.png"
        draw_volumes(found, chart)
        page = template("follow_up.html").render(
            run=run,
            patient=found.patient.name,
            sentence=patient_sentence(found),
            visits=found.patient.visits,
            basis=GIVEN if found.is_given else PROPOSED,
            notes=found.notes,
            events=found.events,
            rejected=found.decided["rejected"],
            colours=COLOURS,
            intervals=intervals,
            chart=_data_uri(chart),
            change_share=f"more than {100 * change_share:g} %",
            voxel=" x ".join(f"{step:.2f}" for step in found.patient.grid.spacing[::-1]),
            registration=registration_table(registration),
            folder=folder,
            unmatched=[describe_decision(one) for one in found.unmatched],
            data=_data(found, run),
        )
    write_text(path, page)


def patient_sentence(found: FollowedPatient) -> str:
    """What changed, in one sentence.

    E.g. `P12: 4 lesions new, 16 stable, 1 disappearing; 0.48 ml of lesions at visit 1, 3.58 ml at visit 2.`
    """
    events = [(event, count) for event, count in found.events.items() if count]
    first = [f"{counted(events[0][1], 'lesion')} {events[0][0]}"] if events else ["no lesions"]
    text = ", ".join([*first, *(f"{count} {event}" for event, count in events[1:])])
    visits, volumes = found.patient.visits, found.volumes_ml
    shown = f"{volumes[0]:.2f} ml of lesions at visit {visits[0]}, {volumes[-1]:.2f} ml at visit {visits[-1]}"
    return f"{found.patient.name}: {text}; {shown}."


def describe_decision(one: Decision) -> str:
    """A decision in words, for what finds no lesion."""
    place = ", ".join(f"{mm:.1f}" for mm in one.place_mm)
    called = f", then {one.event}" if one.event else ""
    return f"{one.kind} the lesion at ({place}) mm from visit {one.visits[0]} to {one.visits[1]}{called}"


def registration_table(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of how visits came onto one grid."""
    visits = about.get("visits", ())
    rows = []
    for one in visits:
        figures = one.get("figures") or {}
        known = [figures.get(name) for name in FIGURES]
        texts = ["–" if value is None else form.format(value) for value, (_, form) in zip(known, FIGURES.values(), strict=True)]
        rows.append({"visit": one["visit"], "values_": texts})
    how = {"given": "transforms that were given", "rigid": "rigid registration", "none": "the positions in the files"}
    text = f"Visits came onto one grid by {how.get(about.get('how', ''), 'unknown means')}"
    text += f"; figures against visit {about['reference']}." if about.get("reference") else "."
    return {"rows": rows, "columns": [name for name, _ in FIGURES.values()], "text": text}


# ---------------------------------------------------------------- parts


def _interval(found: FollowedPatient, rows: Sequence[Mapping[str, Any]], interval: int, drafts: Path) -> dict[str, Any]:
    own = [(n, one) for n, one in enumerate(found.lesions) if one.change.interval == interval]
    moving = [(n, one) for n, one in own if one.change.event != "stable"]
    moving = sorted(moving, key=lambda pair: -changed_ml(pair[1]))
    pictures = []
    for n, one in moving[:MOST_PICTURES]:
        path = drafts / f"{n}.png"
        draw_lesions(found, [one], path)
        text = f"{_millilitres(rows[n])} at ({_place(one)}) mm"
        pictures.append(
            {"index": n, "lesion": one.change.number, "event": one.change.event, "text": text, "data": _data_uri(path)}
        )
    shown = {picture["index"] for picture in pictures}
    return {
        "visits": found.intervals[interval],
        "days": found.days(interval),
        "changed": [_shown(n, one, rows[n], n in shown) for n, one in moving],
        "stable": [_shown(n, one, rows[n], False) for n, one in own if one.change.event == "stable"],
        "stable_rejected": sum(one.change.event == "stable" and not one.counts for _, one in own),
        "pictures": pictures,
        "left_out": max(len(moving) - MOST_PICTURES, 0),
    }


def _shown(index: int, one: DecidedLesion, row: Mapping[str, Any], has_picture: bool) -> dict[str, Any]:
    """A line of the table, as text."""

    def number(key: str, form: str, unit: str = "") -> str:
        return "–" if row[key] == "" else f"{row[key]:{form}}{unit}"

    def sizes(when: str) -> str:
        return "–" if row[f"axial_{when}_mm"] == "" else f"{row[f'axial_{when}_mm']:.1f} x {row[f'perpendicular_{when}_mm']:.1f}"

    is_joined = one.change.event in ("merging", "splitting")
    parts = f"{row['lesions_before']} to {row['lesions_after']}" if is_joined else "confluent" if one.change.is_confluent else ""
    return {
        "index": index,
        "lesion": one.change.number,
        "event": one.change.event,
        "parts": parts,
        "before": number("volume_before_ml", ".3f"),
        "after": number("volume_after_ml", ".3f"),
        "change": number("change_percent", "+.0f", " %"),
        "explained": number("explained_percent", ".0f", " %"),
        "size_before": sizes("before"),
        "size_after": sizes("after"),
        "place": _place(one),
        "side": row["side"],
        "status": one.status,
        "picture": has_picture,
    }


def _millilitres(row: Mapping[str, Any]) -> str:
    before, after = (f"{row[key]:.3f}" if row[key] != "" else "0" for key in ("volume_before_ml", "volume_after_ml"))
    return f"{before} ml to {after} ml"


def _place(one: DecidedLesion) -> str:
    return ", ".join(f"{mm:.1f}" for mm in one.place_mm)


def _data(found: FollowedPatient, run: str) -> dict[str, Any]:
    """What the page's script needs: rows as `decisions.COLUMNS` has them, and decisions that find no lesion."""
    name = found.patient.name
    rows = []
    for one in found.lesions:
        start = [name, *found.intervals[one.change.interval], *(f"{mm:.1f}" for mm in one.change.place_mm)]
        kind = "" if one.decision is None else one.decision.kind
        shown = [f"{mm:.1f}" for mm in one.place_mm]
        rows.append({"start": start, "event": one.change.event, "decision": kind, "shown": shown, "out": one.follows_rejected})
    kept = [list(one.row().values()) for one in found.unmatched]
    return {"columns": list(decisions.COLUMNS), "rows": rows, "kept": kept, "file": f"{run}-{name}-decisions.csv"}


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
