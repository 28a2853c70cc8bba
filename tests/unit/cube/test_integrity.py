"""What errors of storage say: damage, or a store that does not answer."""

import icechunk
import pytest

from pipelines.cube.integrity import naming_damage
from pipelines.errors import ArtefactDamaged, StateError

REFUSED = "error getting object from object store dispatch failure\n|-> dispatch failure\n`-> Connection refused (os error 111)"


def test_a_store_that_does_not_answer_is_not_damaged() -> None:
    message = r"cube at s3://a/b cannot be reached \(.*refused.*check the network"
    with pytest.raises(StateError, match=message) as caught, naming_damage("s3://a/b"):
        raise icechunk.IcechunkError(REFUSED)
    assert not isinstance(caught.value, ArtefactDamaged)
    assert "remove" not in str(caught.value)
    with pytest.raises(ArtefactDamaged, match="restore it from a copy"), naming_damage("s3://a/b"):
        raise icechunk.IcechunkError("the checksum differs")
