"""The tasks: which tree a config is read into."""

from configs.change import ChangeRun
from configs.monitor import MonitorRun
from configs.schema import Run

AnyRun = Run | MonitorRun | ChangeRun
TASKS: dict[str, type[Run] | type[MonitorRun] | type[ChangeRun]] = {"forecast": Run, "monitor": MonitorRun, "change": ChangeRun}
DEFAULT = "forecast"
