"""kill -9 at every step of a training and at every publication of its state: the resumed run ends with the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

DRIVER = Path(__file__).with_name("training_driver.py")


@pytest.mark.slow
def test_a_training_killed_anywhere_ends_with_the_same_weights(tmp_path):
    done = subprocess.run([sys.executable, DRIVER, tmp_path], capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 18 + 12
    assert [line for line in lines if line[1:] != ["True", "True"]] == []
