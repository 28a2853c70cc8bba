"""kill -9 at steps of a training and at publications of its state (make test-all: at every one): the same bits at the end."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.thoroughness import EVERYTHING

pytestmark = pytest.mark.torch

DRIVER = Path(__file__).with_name("training_driver.py")


@pytest.mark.slow
def test_a_training_killed_anywhere_ends_with_the_same_weights(tmp_path):
    done = subprocess.run([sys.executable, DRIVER, tmp_path], capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == (30 if EVERYTHING else 6)
    assert [line for line in lines if line[1:] != ["True", "True"]] == []
