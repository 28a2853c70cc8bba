"""What runs over drawn events (`pipelines.samples.drawn_events`) have published, against the truth of every pixel.

Shapes: Y rows, X columns.
"""

import numpy as np

from pipelines.samples.drawn_events import BEGINS, CLASSES


def score_drawn_map(truth_YX: np.ndarray, mapped_YX: np.ndarray) -> list[str]:
    """Lines with recall, precision and F1 of each class of a class map, over all pixels, labelled ones too."""
    codes = {code: sorted(CLASSES.values()).index(name) + 1 for code, name in CLASSES.items()}  # of a map: sorted by name
    rightly = np.mean(mapped_YX == np.vectorize(codes.get)(truth_YX))
    lines = [f"segment: {rightly:.3f} of all pixels named rightly"]
    for code, name in CLASSES.items():
        is_true, is_said = truth_YX == code, mapped_YX == codes[code]
        hits = np.count_nonzero(is_true & is_said)
        recall, precision = hits / max(is_true.sum(), 1), hits / max(is_said.sum(), 1)
        f1 = 2 * hits / max(is_true.sum() + is_said.sum(), 1)
        lines.append(
            f"segment: {name}: recall {recall:.3f}, precision {precision:.3f}, F1 {f1:.3f} ({is_true.sum()} true, "
            f"{is_said.sum()} mapped)"
        )
    return lines


def score_drawn_alarms(truth_YX: np.ndarray, change_YX: np.ndarray, alarm_YX: np.ndarray, until: str) -> list[str]:
    """Lines with what was alarmed of each event before `until`, how late, how it was dated, and alarms elsewhere.

    `change_YX`, `alarm_YX`: days since 1970-01-01.
    """
    day_of, last = {code: _day(begin) for code, begin in BEGINS.items()}, _day(until)
    in_span_YX, lines = (alarm_YX >= min(day_of.values())) & (alarm_YX < last), []
    for code, begin in day_of.items():
        is_found_YX = (truth_YX == code) & in_span_YX & (alarm_YX >= begin)
        late, early = np.median(alarm_YX[is_found_YX] - begin), np.mean(change_YX[is_found_YX] < begin)
        share = np.count_nonzero(is_found_YX) / np.count_nonzero(truth_YX == code)
        lines.append(
            f"monitor: {CLASSES[code]}: {share:.3f} alarmed, {late:.0f} days after it began (median); of these {early:.3f} "
            "are dated before it began"
        )
    elsewhere = np.count_nonzero(in_span_YX & (truth_YX == 0))
    drawn = 1 - elsewhere / max(int(np.count_nonzero(in_span_YX)), 1)
    return [
        *lines,
        f"monitor: {drawn:.3f} of the alarms in this time are on drawn pixels, {elsewhere} are not (real felling too)",
    ]


def _day(date: str) -> int:
    return int(np.datetime64(date, "D").astype(int))
