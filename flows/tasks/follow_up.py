"""`task: follow_up`: visits of patients on one grid, their lesions and what became of each, beside a reference of changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from configs.load import config_hash
from configs.tasks import follow_up as config
from configs.tasks.follow_up import FollowUpRun
from flows import visits
from flows.folder import RunFolder, code_version, require
from flows.task import Building, Findings, Invocation, Record, Task
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.learning.result import Evaluation
from pipelines.products.section import Section
from pipelines.wording import counted

if TYPE_CHECKING:
    from flows.planning import Extent, PlannedStep
    from pipelines.follow_up.analysis import FollowedPatient
    from pipelines.follow_up.decisions import Decision

Done = TypeVar("Done")
DECISIONS = "decisions"  # folder of a run
UNUSABLE = (RequestError, SceneRefused)  # one patient's masks or images cannot be used: the others go on
RESEARCH = "For research only, not for diagnosis: every lesion here is a proposal, and a reader has to look at it."
NO_REFERENCE = "No reference of changes is given (evaluation.reference): how well change is found here is not known."
SCORE_VOXELS_S, TRIED_VOXELS_S = 2.5e6, 0.25e6  # scores of a pair of visits; all thresholds that are tried


class FollowUp(Task):
    """Follow-up of patients. See `flows.task.Task`."""

    name = "follow_up"
    stages = ("ingest", "evaluate", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {**{stage: (stage,) for stage in stages}, "run": stages}
    code: Mapping[str, tuple[str, ...]] = {
        "evaluate": ("flows.tasks.follow_up:FollowUp.evaluate",),
        "predict": ("flows.tasks.follow_up:FollowUp.predict",),
    }
    is_gated = False
    computed: tuple[str, ...] = ("ingest",)

    def plan(
        self, run: FollowUpRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from flows.planning import MAPS, estimate, plan_ingest

        extent = visits.extent_of(run, folder, reads_source="ingest" in self.verbs[verb] and ingested is None)
        work, rate = extent.pixels * max(extent.dates - 1, 1), extent.machine.numerics
        one = extent.pixels / max(extent.sites, 1)
        start = partial(estimate, machine=extent.machine)
        memory, many = one * extent.dates * 60 / 1e6, counted(extent.sites, "patient")
        scored = work / SCORE_VOXELS_S / rate
        steps = {
            "ingest": plan_ingest(run.cube, extent),
            "evaluate": start(
                "evaluate", f"proposal and differencing, {many}", scored + work / TRIED_VOXELS_S / rate, 0.1, memory
            ),
            "predict": start("predict", f"lesions of {many}", 3 * scored, extent.pixels * 0.2 / 1e6, memory, publishes=MAPS),
        }
        return extent, [steps[stage] for stage in self.verbs[verb] if self.needs(run, stage)]

    def needs(self, run: FollowUpRun, stage: str) -> bool:
        return stage != "evaluate" or run.evaluation.reference is not None

    def check(self, context: Invocation, stage: str) -> None:
        """Raises MissingInput (no ingest, or one that was not evaluated), RequestError (nothing to evaluate by)."""
        require(context.folder, "ingest")
        if stage == "evaluate" and not self.needs(context.run, stage):
            raise RequestError(
                "there is no reference to evaluate by; name it: evaluation.reference, a mask of changes of each patient"
            )

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        folder, content = context.folder, context.run.model_dump(mode="json")
        known = {"snapshot": require(folder, "ingest")["snapshot"], "masks": mask_digests(context)}
        known |= {name: content[name] for name in ("lesions", "change", "evaluation")}
        if stage == "evaluate":
            return known
        evaluated = require(folder, "evaluate")["key"] if self.needs(context.run, "evaluate") else ""
        return {**known, "evaluated": evaluated, "decisions": digest_of_decisions(context)}

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        return True

    # ------------------------------------------------------------ stages

    def ingest(self, context: Invocation) -> Record:
        return visits.ingest_visits(context)

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        """Proposal and simple differencing against the reference, with thresholds chosen on other patients."""
        from pipelines.follow_up.agreement import has_lesions
        from pipelines.follow_up.analysis import count_patient, try_thresholds
        from pipelines.follow_up.calibration import choose_thresholds, fix_threshold, held_out_thresholds
        from pipelines.follow_up.conclusion import conclude

        run, do, settings = context.run, partial(context.steps.do, "evaluate"), config.build_settings(context.run)
        known: dict[str, Any] = {}
        for name in visits.patients_of(context):
            try:
                patient = visits.open_patient(context, name)
                if patient.reference_ZYX is None or not has_lesions(patient.reference_ZYX, patient.voxel_ml):
                    context.steps.log(f"evaluate: {name} has no reference of changes, or none that counts, and is not measured")
                    continue
                known[name] = do(f"try thresholds on {name}", alone(partial(try_thresholds, patient, settings)))
            except UNUSABLE as e:
                context.steps.log(f"evaluate: {name} is not measured: {e}")
        if not known:
            raise RequestError(
                "no patient that is used has a reference with changes; correct evaluation.reference, or take it out"
            )
        thresholds = fix_threshold(held_out_thresholds(known, list(known)), run.change.threshold)
        shipped = fix_threshold({"": choose_thresholds(known)}, run.change.threshold)[""]
        counts = {}
        for name in known:
            work = partial(count_patient, visits.open_patient(context, name), thresholds[name], settings)
            counts[name] = do(f"score {name}", alone(work))
        is_fixed = run.change.threshold is not None
        judge = partial(conclude, counts, thresholds, config.build_asked(run), shipped, is_fixed=is_fixed)
        evaluation = do("compare", alone(judge))
        return evaluation, {"snapshot": require(context.folder, "ingest")["snapshot"], "model_hash": ""}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """Tables, maps, pictures and a page for every patient. Raises MissingInput without the evaluation that it needs."""
        from pipelines.follow_up.decisions import read_decisions
        from pipelines.products.follow_up_products import FollowUpLineage, draw_quicklook, write_follow_up_index

        run, ingested, do = context.run, require(context.folder, "ingest"), partial(context.steps.do, "predict")
        if evaluation is None and self.needs(run, "evaluate"):
            raise MissingInput("the thresholds come from `driftline evaluate CONFIG`; run it first, or `driftline run CONFIG`")
        decisions = [one for path in decision_files(context) for one in read_decisions(path)]
        facts: dict[str, Any] = {}
        best: tuple[float, FollowedPatient] | None = None
        left_out: list[str] = []
        for name in visits.patients_of(context):
            work = partial(self.follow, context, name, threshold_of(run, evaluation, name), decisions, building)
            try:
                found = do(f"follow {name}", alone(work))
            except UNUSABLE as e:
                left_out.append(f"{name} is left out: {e}")
                continue
            facts[name] = found[1]
            amount = sum(row["change_ml"] for row in found[1]["largest"])
            best = (amount, found[0]) if best is None or amount > best[0] else best
        if best is None:
            raise RequestError("\n".join(["no patient is left", *left_out]))
        draw = partial(draw_quicklook, [best[1]], building.pictures / "quicklook.png")
        do("draw the lesions that change most", alone(draw))
        strangers = [one for one in decisions if one.patient not in facts]
        lineage = FollowUpLineage(run.name, ingested["snapshot"], config_hash(run), code_version(), len(decisions))
        do("write the index", alone(partial(write_follow_up_index, facts, lineage, strangers, building.products)))
        notes = [*left_out, *(f"{name}: {note}" for name, one in facts.items() for note in one["notes"])]
        notes += [f"{name}: a decision finds no lesion: {text}" for name, one in facts.items() for text in one["unmatched"]]
        if strangers:
            notes.append(
                f"{counted(len(strangers), 'decision')} on patients that this run does not have: nothing is done with them"
            )
        largest = sorted((row for one in facts.values() for row in one.pop("largest")), key=lambda row: -row["change_ml"])[:10]
        events: dict[str, int] = {}
        for one in facts.values():
            events = {event: events.get(event, 0) + count for event, count in one["events"].items()}
        shown = ", ".join(f"{count} {event}" for event, count in events.items() if count) or "no lesions"
        return {
            "snapshot": ingested["snapshot"],
            "model_hash": "",
            "patients": facts,
            "largest": largest,
            "events": events,
            "notes": notes,
            "message": f"{counted(len(facts), 'patient')}: {shown}",
        }

    def follow(
        self, context: Invocation, name: str, threshold: float, decisions: list[Decision], building: Building
    ) -> tuple[FollowedPatient, Record]:
        """A patient with what was found, and its files."""
        from pipelines.follow_up.analysis import follow_patient, score_patient
        from pipelines.products.follow_up_products import write_patient

        run, settings = context.run, config.build_settings(context.run)
        patient = visits.open_patient(context, name)
        found = follow_patient(patient, score_patient(patient, settings), threshold, settings, decisions)
        registration = require(context.folder, "ingest")["sites"][name].get("registration", {})
        place, share = decisions_place(run), run.lesions.change_share
        return found, write_patient(found, registration, run.name, share, place, building.products)

    # ------------------------------------------------------------ summary and report

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.products.follow_up_sections import follow_up_sentence

        run, folder, ingested = context.run, context.folder, require(context.folder, "ingest")
        patients: dict[str, Any] = predicted.get("patients", {})
        named = next(iter(patients), "")
        kept = ("events", "decided", "volumes_ml", "brighter_ml", "darker_ml", "threshold", "lesions", "visits")
        pages = (
            [("page", folder.products / f"{named}.html"), ("lesions", folder.products / f"{named}-lesions.csv")] if named else []
        )
        notes = [RESEARCH, *([] if evaluation is not None else [NO_REFERENCE]), *predicted.get("notes", ())]
        return Findings(
            sentence=follow_up_sentence(run.name, patients, evaluation),
            found={"events": predicted["events"]} if predicted else {},
            largest=tuple(predicted.get("largest", ())),
            sites={name: {key: facts[key] for key in kept} for name, facts in patients.items()},
            cube={name: {"visits": ", ".join(one["visits"])} for name, one in ingested["sites"].items()},
            settings={
                "lesions": "given masks" if run.lesions.masks else "proposed",
                "enlarging or shrinking": f"from a change of volume of more than {100 * run.lesions.change_share:g} %",
                "smallest lesion": f"{run.lesions.least_mm:g} mm (axial)",
            },
            notes=tuple(dict.fromkeys(notes)),
            lines=(*pages, *([("picture", folder.quicklook)] if predicted else [])),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.follow_up_sections import agreement_section, lesions_section

        found = []
        if predicted:
            where = decisions_place(context.run)
            found.append(lesions_section(predicted["patients"], predicted["largest"], context.folder.products, where))
        return [*found, agreement_section(evaluation)] if evaluation is not None else found


# ---------------------------------------------------------------- parts


def alone(work: Callable[[], Done]) -> Callable[[object], Done]:
    """`work` as a step that shows no progress."""
    return lambda _progress: work()


def threshold_of(run: FollowUpRun, evaluation: Evaluation | None, name: str) -> float:
    """Of the proposal for a patient: what the config says, else as evaluated: never chosen on the patient's own reference."""
    from pipelines.follow_up.calibration import DEFAULTS

    if run.change.threshold is not None:
        return run.change.threshold
    if evaluation is None:
        return DEFAULTS["proposal"]
    details = evaluation.details
    return float(details["thresholds"].get(name, details["shipped_thresholds"])["proposal"])


def decisions_place(run: FollowUpRun) -> str:
    """Where decisions of readers are read from, for people."""
    if run.decisions is not None:
        return f"{Path(run.decisions).name} (`decisions` of the config)"  # the folders above may name a patient
    return f"{run.runs}/{run.name}/{DECISIONS}"


def decision_files(context: Invocation) -> list[Path]:
    """The CSV files with decisions of readers, in the order of their names."""
    named = context.run.decisions
    path = Path(named) if named is not None else context.folder.path / DECISIONS
    return sorted(path.glob("*.csv")) if path.is_dir() else [path] if named is not None else []


def digest_of_decisions(context: Invocation) -> str:
    """SHA-256 of what readers decided, "" of none. Raises MissingInput, RequestError (a file that is too large)."""
    from pipelines.follow_up.decisions import require_table

    paths = decision_files(context)
    for path in paths:
        require_table(path)
    return digest_of_files(paths)


def digest_of_files(paths: list[Path]) -> str:
    """SHA-256 of the content of files, "" of none."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest() if paths else ""


def mask_digests(context: Invocation) -> dict[str, str]:
    """patient -> SHA-256 of its masks, which are read anew by every stage and are no part of the cube.

    Of a patient whose masks cannot be told apart it is what is wrong with them: such a patient is left out, and the others go on.
    """
    files, found = visits.files_at_hand(context.run), {}
    for patient in files.names():
        try:
            name = visits.name_of_patient(patient)
            paths = [files.file_of(role, patient) for role in ("brain", "reference")]
            if context.run.lesions.masks is not None:
                paths += [files.file_of("lesions", patient, visit) for visit in files.visits(patient)]
        except RequestError as e:
            found[patient] = str(e)
            continue
        found[name] = digest_of_files([path for path in paths if path is not None])
    return found
