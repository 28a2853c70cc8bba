"""The tasks: which tree a config is read into."""

from configs.tasks.change import ChangeRun
from configs.tasks.forecast import ForecastRun
from configs.tasks.monitor import MonitorRun
from configs.tasks.pair import PairRun

AnyRun = ForecastRun | MonitorRun | ChangeRun | PairRun
Tree = type[ForecastRun] | type[MonitorRun] | type[ChangeRun] | type[PairRun]
TASKS: dict[str, Tree] = {"forecast": ForecastRun, "monitor": MonitorRun, "change": ChangeRun, "pair": PairRun}
DEFAULT = "forecast"


def tree_of(data: object) -> Tree | None:
    """The tree that `data` (what the YAML says) is read into; None for a task that there is not."""
    task = data.get("task", DEFAULT) if isinstance(data, dict) else DEFAULT
    return TASKS.get(task) if isinstance(task, str) else None
