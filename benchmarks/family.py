"""Every member of the recurrent family x every task that it can do -> docs/results/family.md.

    python -m benchmarks.family DATA FOLDER [--only TASK] [--member NAME] [--seeds 3] [--jobs 2] [--finished]
        > docs/results/family.md

A row is a `driftline run` in FOLDER of a ready-made config with what `benchmarks.family_tables` changes; its command stands in
the page. Rows that another page of docs/results states are read from that page, and rows that `benchmarks.results_labels`,
`results_forecasts` or `results_forecasters` have finished in the same FOLDER are taken from there: neither is run. What is
finished is not run again, a killed row goes on, a row that fails is named with its error while the others go on. `--member` takes
a member of the family (ConvLSTM) or a row (unet_convlstm). `--finished` runs nothing and prints what there is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean, stdev

from benchmarks.family_pages import stated
from benchmarks.family_rows import Line, command_of, error_of, lines_asked, members_of, names_asked, row_of
from benchmarks.family_tables import FAMILY, NOT_OF, SECTIONS, Section
from benchmarks.labels_tables import Figure
from benchmarks.results_labels import ingest_cube, shown, spread_of
from benchmarks.run_rows import Asked, Row, asked_for, costs_of, grid, wrapped

TASKS = tuple(dict.fromkeys(section.task for section in SECTIONS.values()))
SMALLER_IS_BETTER = ("mse", "mae", "loss", "nats")
NOT_MEASURED = "not measured"
Rows = Mapping[Line, Row]
HEAD = """# The family: every member, every task

Printed by `python -m benchmarks.family DATA FOLDER`, which can be stopped and started again. Members that are no recurrent
networks, but stand beside them for comparison, are in italics. Each row is one `driftline run` of a ready-made config with
what `--set` changes (Moving MNIST: a row of another command); below each table stands the command of every row. What "from"
calls a page was measured by the command of that page, under the protocol that is repeated here; "here" was measured by this
one. Times are CPU seconds of the whole run (ingest, training of all its networks, baselines, products) with one thread for
PyTorch, on two shared cores of an x86-64 VM; a dash: made without a meter; "at least": an earlier try was killed or failed,
and the run went on from there. Memory is the peak of the run, parameters are those of one network. Values in brackets after a
figure: its 95 % interval. Baselines in italics, on the same tested samples. Where a protocol is reduced for a CPU it says so:
it tells members apart after minutes, and nothing of what they reach in the end. Figures of different tables cannot be
compared.
"""
LEGEND = """The first figure of each table that a member is in; which figure it is, the last two rows say. `not measured`: a
row that nobody has run yet, its command stands below its table. `-`: not among what the member can do, [why](#why-not).
A dagger: metadata alone come near that figure (CONFOUNDED). Cells over maps are carried by `siamese_dcrn` in the tables oscd,
oscd-classes and oscd-pretrain, by a U-Net in crops and porto-pretrain, by `centre_*` in boxes; RNN, LSTM and GRU by
`row_*`, `region_*`, `cnn_*`, `pixel_rnn`, `caption_lstm`."""


# ---------------------------------------------------------------- rows


def measured(asked: Asked, sections: Sequence[str]) -> tuple[dict[Line, Row], dict[Line, str]]:
    """(row of each line, error of each that failed). Lines of a page are read, the others run unless they are finished."""
    lines, named = lines_asked(sections, asked.seeds), names_asked(asked.rows)
    rows = {line: row for line in lines if line.seed == 0 and (row := stated(line.section).get(line.member)) is not None}
    covered = {line for line in lines if line in rows or line.seed in seeds_on_page(rows.get(Line(line.section, line.member)))}

    def is_run(line: Line) -> bool:
        return not asked.finished and line not in covered and (not named or (line.section, line.member) in named)

    def of(line: Line) -> Row | None:
        return row_of(line, asked.data, asked.folder, is_run=is_run(line))

    if any(is_run(line) and line.of.task == "regress" and of_folder(line, asked) is None for line in lines):
        try:
            ingest_cube(asked.folder, asked.data)
        except SystemExit as stopped:  # the rows that read it will say so
            print(stopped, file=sys.stderr, flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        found = zip(lines, pool.map(of, lines), strict=True)
        rows |= {line: row for line, row in found if row is not None}
    errors = {line: error for line in lines if line not in rows and (error := error_of(line, asked.data, asked.folder))}
    return rows, errors


def of_folder(line: Line, asked: Asked) -> Row | None:
    return row_of(line, asked.data, asked.folder, is_run=False)


def seeds_on_page(row: Row | None) -> list[int]:
    """Seeds beyond the first that a page states of the same row."""
    return list(row["seeds"]) if row is not None and "values" in row else []


def seed_rows(section: str, member: str, rows: Rows) -> dict[int, Row]:
    return {line.seed: row for line, row in rows.items() if (line.section, line.member) == (section, member)}


def first_rows(section: str, rows: Rows) -> dict[str, Row]:
    """The row of each member that is measured, of its first seed."""
    known = {member: seed_rows(section, member, rows) for member in members_of(section)}
    return {member: of_seed[min(of_seed)] for member, of_seed in known.items() if of_seed}


# ---------------------------------------------------------------- what is printed


def cells_of(section: Section, member: str, known: Mapping[int, Row], *, has_failed: bool) -> list[str]:
    """A row of the table of a section."""
    if not known:
        return [member, "failed" if has_failed else NOT_MEASURED, *[""] * (len(section.table.figures) - 1 + 6)]
    first = known[min(known)]
    cells = [f"{member}{dagger(first)}", *(shown(one, first["methods"]["model"]) for one in section.table.figures)]
    source = f"[{first['page']}]({first['page']})" if "page" in first else f"here, {first['measured']}"
    return [*cells, seeds_of(known), spread(section, known), str(first["parameters"]), *costs_of(first), source]


def dagger(row: Row) -> str:
    return " †" if row.get("confounded") else ""


def seeds_of(known: Mapping[int, Row]) -> str:
    """The seeds of the runs, and how many networks a run has."""
    first = known[min(known)]
    seeds = sorted({*known, *seeds_on_page(first)})
    networks = 1 if "values" in first else first.get("networks") or len(first.get("seeds", [])) or 1
    return ", ".join(map(str, seeds)) + (f" ({networks} networks)" if networks > 1 else "")


def spread(section: Section, known: Mapping[int, Row]) -> str:
    """Mean and standard deviation over seeds, or over the networks of a run."""
    figure, first = section.table.figures[0], known[min(known)]
    values = [row["methods"]["model"][figure.key] for row in known.values()]
    values = first["values"] if "values" in first and len(values) == 1 else values
    if len(values) > 1:
        return f"{mean(values):.4f} ({stdev(values):.4f})"
    return str(first.get("alone") or spread_of(first.get("single", [])))


def section_lines(name: str, rows: Rows, errors: Mapping[Line, str]) -> Iterator[str]:
    """Markdown: the heading, how it was measured, a line for each member, the baselines, the commands."""
    section, members = SECTIONS[name], members_of(name)
    table, known = section.table, {member: seed_rows(name, member, rows) for member in members_of(name)}
    firsts = first_rows(name, rows)
    some = list(firsts.values())
    config = f"`configs/{table.config}.yaml`. " if table.config else ""
    protocol = some[0]["protocol"] if some else ""
    dates = sorted({row["measured"] for row in some})
    when = f"Measured {' and '.join(dates)}." if dates else ""
    yield from (f"### `{name}`: {table.title}", "")
    yield from (*wrapped(" ".join(filter(None, [config + table.about, protocol, when, section.also]))), "")
    alone = f"{table.alone}, mean (spread)"
    heads = ["member", *(one.title for one in table.figures), "seeds", alone, "parameters", "CPU s", "peak GB", "from"]
    failed = [line for line in errors if line.section == name]
    lines = [cells_of(section, one, known[one], has_failed=any(line.member == one for line in failed)) for one in members]
    for baseline, scores in baselines_of(some).items():
        lines.append([f"*{baseline}*", *(shown(one, scores) for one in table.figures), *[""] * 6])
    yield from (*grid(heads, lines), "")
    if any(dagger(row) for row in some):
        yield from (*wrapped(confounded(firsts)), "")
    if failed:
        said = (wrapped(f"- failed, seed {line.seed}: {errors[line]}") for line in failed)
        yield from (*(f"{'  ' if number else ''}{line}" for lines in said for number, line in enumerate(lines)), "")
    yield from ("```sh", *(command_of(Line(name, one)) for one in members), "```", "")


def baselines_of(rows: Sequence[Row]) -> dict[str, Mapping[str, float | None]]:
    """The scores of everything that is not the member, on the same samples."""
    return {name: scores for row in rows for name, scores in row["methods"].items() if name != "model"}


def confounded(firsts: Mapping[str, Row]) -> str:
    clues = [(name, clue) for name, row in firsts.items() for clue in (row.get("confounded") or {}).items()]
    said = [f"{name} by {clue} ({float(reached):.3f})" for name, (clue, reached) in clues]
    return f"† CONFOUNDED, metadata alone come near in balanced accuracy and nothing would be published: {'; '.join(said)}."


def overview(rows: Rows, chosen: Sequence[str]) -> Iterator[str]:
    """A line for each member, a column for each task, the best baseline of each table, and what the figures are."""
    tasks = [task for task in TASKS if any(SECTIONS[name].task == task for name in chosen)]
    names = {task: [name for name in chosen if SECTIONS[name].task == task] for task in tasks}
    lines = [[f"**{member}**" if member[0] != "*" else member] for member in FAMILY]
    for task in tasks:
        for line, of in zip(lines, FAMILY.values(), strict=True):
            cells = [overview_cell(name, of.rows[name][0], rows) for name in names[task] if name in of.rows]
            line.append("; ".join(cells) or "-")
    best = ["*best baseline*", *("; ".join(filter(None, (best_baseline(one, rows) for one in names[task]))) for task in tasks)]
    what = ["; ".join(f"{one}: {SECTIONS[one].table.figures[0].title}" for one in names[task]) for task in tasks]
    yield from grid(["member", *tasks], [*lines, best, ["*figure*", *what]])


def overview_cell(section: str, member: str, rows: Rows) -> str:
    first = first_rows(section, rows).get(member)
    if first is None:
        return f"{NOT_MEASURED} ({section})"
    return f"{bare(SECTIONS[section].table.figures[0], first['methods']['model'])}{dagger(first)} ({section})"


def bare(figure: Figure, scores: Mapping[str, float | None]) -> str:
    """The figure without its interval."""
    return shown(figure, {figure.key: scores.get(figure.key)})


def best_baseline(section: str, rows: Rows) -> str:
    figure = SECTIONS[section].table.figures[0]
    scores = baselines_of(list(first_rows(section, rows).values()))
    values = {name: value for name, one in scores.items() if (value := one.get(figure.key)) is not None}
    if not values:
        return ""
    choose = min if figure.key in SMALLER_IS_BETTER else max
    name = choose(values, key=values.__getitem__)
    return f"{bare(figure, scores[name])} {name} ({section})"


def reasons(tasks: Sequence[str]) -> Iterator[str]:
    """Why a member has no row in a task."""
    for task in tasks:
        left = [name for name, member in FAMILY.items() if not any(SECTIONS[one].task == task for one in member.rows)]
        for _, members, why in (one for one in NOT_OF if one[0] == task):
            these = [name for name in left if name in members] if members else left
            left = [name for name in left if name not in these]
            if these:
                said = f"- `{task}`, {', '.join(name.strip('*') for name in these)}: {why}"
                yield from (f"{'  ' if number else ''}{line}" for number, line in enumerate(wrapped(said)))


def document(chosen: Sequence[str], rows: Rows, errors: Mapping[Line, str]) -> Iterator[str]:
    """The page."""
    tasks = [task for task in TASKS if any(SECTIONS[name].task == task for name in chosen)]
    there = {(line.section, line.member) for line in rows}
    every = [(name, member) for name in chosen for member in members_of(name)]
    known = sum(one in there for one in every)
    failed = f", {len(errors)} failed" if errors else ""
    yield HEAD
    yield from (f"{known} of {len(every)} rows are measured{failed}.", "", *LEGEND.splitlines(), "", *overview(rows, chosen), "")
    yield from ("## Why not", "", *reasons(tasks), "")
    for task in tasks:
        yield from (f"## {task.capitalize()}", "")
        for name in (one for one in chosen if SECTIONS[one].task == task):
            yield from section_lines(name, rows, errors)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = asked_for((__doc__ or "").splitlines()[0], TASKS, arguments, member="member", seeds=3)
    chosen = [name for name, section in SECTIONS.items() if section.task in asked.chosen]
    rows, errors = measured(asked, chosen)
    print("\n".join(document(chosen, rows, errors)).rstrip())
    if errors and not asked.finished:
        print(f"{len(errors)} rows failed: {', '.join(line.name for line in errors)}", file=sys.stderr)


if __name__ == "__main__":
    main()
