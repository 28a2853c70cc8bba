"""The tasks: which tree a config is read into."""

from configs.tasks.change import ChangeRun
from configs.tasks.classify import ClassifyRun
from configs.tasks.describe import DescribeRun
from configs.tasks.detect import DetectRun
from configs.tasks.follow_up import FollowUpRun
from configs.tasks.forecast import ForecastRun
from configs.tasks.generate import GenerateRun
from configs.tasks.monitor import MonitorRun
from configs.tasks.pair import PairRun
from configs.tasks.pretrain import PretrainRun
from configs.tasks.regress import RegressRun
from configs.tasks.segment import SegmentRun

AnyRun = (
    ForecastRun
    | MonitorRun
    | ChangeRun
    | PairRun
    | SegmentRun
    | ClassifyRun
    | RegressRun
    | DetectRun
    | DescribeRun
    | GenerateRun
    | FollowUpRun
    | PretrainRun
)
Tree = type[AnyRun]
TASKS: dict[str, Tree] = {
    "forecast": ForecastRun,
    "monitor": MonitorRun,
    "change": ChangeRun,
    "pair": PairRun,
    "segment": SegmentRun,
    "classify": ClassifyRun,
    "regress": RegressRun,
    "detect": DetectRun,
    "describe": DescribeRun,
    "generate": GenerateRun,
    "follow_up": FollowUpRun,
    "pretrain": PretrainRun,
}
DEFAULT = "forecast"


def tree_of(data: object) -> Tree | None:
    """The tree that `data` (what the YAML says) is read into; None for a task that there is not."""
    task = data.get("task", DEFAULT) if isinstance(data, dict) else DEFAULT
    return TASKS.get(task) if isinstance(task, str) else None
