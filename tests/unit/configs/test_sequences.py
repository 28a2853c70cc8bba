"""Every network of sequences that a config can name can be built with the settings of the config."""

from typing import get_args

import numpy as np
import pytest

from configs.samples import SpanAnswersConfig
from configs.sequences import ONE_IMAGE, SampleModelConfig, SequenceModelConfig, build_learner
from configs.tasks.detect import CentrePointConfig
from pipelines.samples.sample_store import SampleLayout
from pipelines.sources.idx import GRAY

KINDS = [
    (model, kind)
    for model in (SequenceModelConfig, CentrePointConfig)
    for kind in get_args(model.model_fields["kind"].annotation)
]


@pytest.mark.parametrize(("model", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_every_kind_of_the_config_is_a_network(model: type[SampleModelConfig], kind: str) -> None:
    size = (4, 16, 20) if kind.startswith("volume") else (16, 20)
    layout = SampleLayout(1 if kind in ONE_IMAGE else 3, (GRAY,), size, np.dtype("uint8"), {})
    network = build_learner(model(kind=kind), layout, ("a", "b"), 0).networks[0]
    assert network.config.kind == kind
    assert network.frame_shape == (1, *size)


def test_ends_of_spans_are_columns_only_where_labels_are_of_spans() -> None:
    """A copy without names takes the columns that are read: dates in others stay behind."""
    whole = SpanAnswersConfig(kind="table", path="labels.csv")
    assert set(whole.read_columns.values()) == {"file", "label", "group", "part"}
    spans = whole.model_copy(update={"spans": "seconds"})
    assert set(spans.read_columns.values()) == {"file", "label", "group", "part", "from", "to"}
