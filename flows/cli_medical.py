"""The commands for images of patients: a de-identified copy of a folder, an audit of one, and the way back from pseudonyms."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import Json
from flows.cli_options import AsJson
from flows.terminal import DONE, SOME_REFUSED, Bars, show
from pipelines.errors import MissingInput, RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.privacy.folder import Manifest
    from pipelines.privacy.settings import Mask

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="the secret key; default: privacy.key in your data folder, made at first use"),
]
EXPECTED = ("directory",)  # reasons to refuse a file that are no news
MOST_FILES = 5


def deidentify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="the folder of DICOM, NIfTI, video files, pictures; folders in it count too"),
    ],
    target: Annotated[Path | None, typer.Argument(metavar="[TARGET]", help="the folder of the copy; not with --audit")] = None,
    audit: Annotated[bool, typer.Option("--audit", help="only report what would be done; writes nothing")] = False,
    key: KeyFile = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="ROWS,COLUMNS", help="rectangle set to 0, e.g. 0:40,0:800 (the ends do not count); may be repeated"),
    ] = None,
    checked: Annotated[
        bool, typer.Option("--checked", help="a person has looked at all images: none shows text; none is kept back")
    ] = False,
    ocr: Annotated[bool, typer.Option("--ocr", help="keep back images in which the program `tesseract` reads text")] = False,
    keep: Annotated[list[str] | None, typer.Option(metavar="age|sex|size|weight", help="keep this of the patient")] = None,
    names: Annotated[
        bool, typer.Option("--names", help="show the names of the files that are refused; they may identify patients")
    ] = False,
    json_: AsJson = False,
) -> int | None:
    """Write a de-identified copy of a folder of images, or audit the folder. Exit code 3 if a file is refused.

    Headers of DICOM files follow the Basic Application Level Confidentiality Profile with modified dates; of NIfTI and video
    files and pictures nothing but images, position, times and order passes. Images that may show text are kept back until a
    --mask covers it or --checked says that there is none.

    \b
    Examples:
      driftline deidentify scans/ --audit
      driftline deidentify scans/ scans-deidentified/
      driftline deidentify echo/ echo-deidentified/ --mask 0:60,0:800
    """
    from configs.privacy import MaskConfig, PrivacyConfig, build_privacy
    from pipelines.privacy.folder import audit_folder, deidentify_folder
    from pipelines.sources.deidentified import deidentify_in_workers
    from pipelines.sources.deidentifying import kinds_of

    if audit != (target is None):
        raise RequestError("name a TARGET for the copy, or --audit for a report alone")
    unknown = set(keep or ()) - {"age", "sex", "size", "weight"}
    if unknown:
        raise RequestError(f"--keep {min(unknown)}: of the patient only age, sex, size and weight can be kept")
    masks = [MaskConfig(rows=one.rows, columns=one.columns) for one in map(parse_mask, mask or ())]
    if key is not None and target is not None and target.resolve() in key.resolve().parents:
        raise RequestError(f"{key} would be within the copy, which it must never accompany; name another place")
    config = PrivacyConfig.model_validate(
        {"key_file": None if key is None else str(key), "burned_in": "checked" if checked else "quarantine", "ocr": ocr}
        | {"keep": keep or [], "masks": masks}
    )
    settings = build_privacy(config, makes_key=not audit)
    assert settings is not None
    with Bars().step("deidentify", "audit" if audit else "copy") as progress:
        how = settings, progress, kinds_of(), deidentify_in_workers
        manifest = audit_folder(folder, *how) if target is None else deidentify_folder(folder, target, *how)
    lines = summary_lines(manifest, target, shows_names=names)
    show(summary(manifest, target, shows_names=names), lines, json_)
    return SOME_REFUSED if any(one.reason not in EXPECTED for one in manifest.refused) else DONE


def parse_mask(text: str) -> Mask:
    """`0:40,0:800` as a mask. Raises RequestError."""
    from pipelines.privacy.settings import Mask

    match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if match is None or int(match[1]) >= int(match[2]) or int(match[3]) >= int(match[4]):
        raise RequestError(f"--mask {text}: expected FIRST:END,FIRST:END of rows and columns, e.g. 0:40,0:800")
    return Mask((int(match[1]), int(match[2])), (int(match[3]), int(match[4])))


def summary(manifest: Manifest, target: Path | None, *, shows_names: bool) -> Json:
    """The counts of a copy or an audit, without any value of a header; names of files only if asked for."""
    elements = Counter[tuple[str, str]]()
    for (path, _, action), count in manifest.elements.items():
        elements[path.rsplit("/", 1)[-1] or path, action] += count
    return {
        "target": None if target is None else str(target),
        **{name: getattr(manifest, name) for name in ("copied", "unchanged", "duplicates", "other", "gone", "claimed")},
        "quarantined": len(manifest.quarantined),
        "refused": [
            {"file": one.scene_id, "reason": one.reason, "detail": one.detail}
            | ({"name": manifest.names.get(one.scene_id)} if shows_names else {})
            for one in manifest.refused
        ],
        "actions": dict(sorted(Counter(action for (_, action), n in elements.items() for _ in range(n)).items())),
        "elements": [{"tag": tag, "name": name_of(tag), "action": a, "count": n} for (tag, a), n in sorted(elements.items())],
    }


def name_of(tag: str) -> str:
    """The standard's name of a tag in 8 hexadecimal digits; "" of private and unknown ones."""
    from pydicom.datadict import dictionary_description

    from pipelines.privacy.tables import profile

    try:
        number = int(tag, 16)
        return profile()[number].name if number in profile() else dictionary_description(number)
    except (KeyError, ValueError):
        return ""


def summary_lines(manifest: Manifest, target: Path | None, *, shows_names: bool) -> list[str]:
    """The same for people: what was done, then every refused file."""
    content = summary(manifest, target, shows_names=shows_names)
    verb = "would be copied" if target is None else f"copied to {target}"
    lines = [f"{counted(manifest.copied, 'image')} {verb}; {manifest.unchanged} unchanged, {manifest.duplicates} duplicates"]
    lines += [f"{counted(manifest.other, 'file')} of other kinds not copied"] if manifest.other else []
    lines += [f"{counted(manifest.gone, 'copy', 'copies')} of files that are gone stay; remove them if they must not"] * bool(
        manifest.gone
    )
    lines += [f"elements: {', '.join(f'{count} {action}' for action, count in content['actions'].items())}"] * bool(
        content["actions"]
    )
    if manifest.claimed:
        claim = "state that the identity is removed (0012,0062), and held elements that had to be removed"
        lines.append(f"{counted(manifest.claimed, 'original')} {claim}")
    if manifest.refused:
        lines.append(f"{len(manifest.refused)} refused, of them {len(manifest.quarantined)} because they may show text:")
    groups: dict[str, list[str]] = {}
    for one in manifest.refused:
        name = manifest.names.get(one.scene_id, "") if shows_names else one.scene_id
        groups.setdefault(f"{one.reason}: {one.detail}", []).append(name)
    for why, files in groups.items():
        more = f" ... and {len(files) - MOST_FILES} more (--json lists all)" if len(files) > MOST_FILES else ""
        lines.append(f"  {len(files)} x {why}\n    {', '.join(files[:MOST_FILES])}{more}")
    lines += ["  --names shows which files these are"] if manifest.refused and not shows_names else []
    return lines


def reidentify(
    pseudonyms: Annotated[list[str], typer.Argument(metavar="PSEUDONYM...", help="patient IDs, samples or groups of a copy")],
    ids: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="text file: patient IDs (study UIDs where there was none), paths of files or folders, groups",
        ),
    ],
    key: KeyFile = None,
    json_: AsJson = False,
) -> int | None:
    """Name what is behind pseudonyms and keyed names: needs the key that the copy was made with, and a list of originals.

    \b
    Examples:
      driftline reidentify P1f3a5b7c9d0e2f4a --ids patients.txt
      driftline reidentify P1f3a5b7c9d0e2f4a --ids patients.txt --key study.key --json
    """
    from pipelines.privacy.keys import default_key_file, load_key

    secret = load_key(key or default_key_file(), create=False)
    try:
        originals = [line.strip() for line in ids.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as e:
        raise MissingInput(f"cannot read {ids}: {e.strerror}") from e
    found = {name: secret.original_of(name, originals) for name in pseudonyms}
    lines = [f"{name}  {one or '(none of the IDs, or another key)'}" for name, one in found.items()]
    show({"patients": found}, lines, json_)
    return DONE if all(found.values()) else SOME_REFUSED
