"""Executes a whole run that is killed at one chosen write after another below its folder, then completed.

Usage: python run_driver.py FOLDER CONFIG. FOLDER/CONFIG is the config of a run whose name is the config's stem. Prints one
JSON object. A separate script: it forks, and its audit hook cannot be removed.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path

import torch

from configs.load import load_run
from flows.terminal import guard
from flows.verbs import stage

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "shutil.rmtree"}
POINTS = {  # the write before which the process is killed: pattern, and which of its occurrences
    "the sample cache is published": (r"os\.rename .*/samples/", 0),
    "a checkpoint in mid-training": (r"os\.rename .*/model/resume/.*\.part", 0),
    "the evaluation is written": (r"os\.rename .*/\.evaluation\.json", 0),
    "a region of the prediction": (r"os\.rename .*/staging/.*\.region", 0),
    "between the old products and the new": (r"os\.rename .*/\.products-building", 0),
}
RESULTS = ("model/model.safetensors", "evaluation.json", "products")


def writes(event: str, arguments: tuple, folder: str) -> str:
    """`event path` if the audit event changes something below `folder`, else ""."""
    if event not in EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
        return ""
    path = str(Path(os.fsdecode(arguments[0])).absolute())
    is_write = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return f"{event} {path}" if is_write and path.startswith(folder) else ""


def carry_out(config: Path, run: Path, log: Path, kill_at: tuple[str, int] | None = None, verb: str = "run") -> int:
    """The child's wait status. It logs every write, and is killed before the one that `kill_at` names."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    said = os.open(log.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    noted: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if text := writes(event, arguments, f"{run}{os.sep}"):
            noted.append(text)
            if kill_at and sum(bool(re.match(kill_at[0], write)) for write in noted) > kill_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    code = guard(lambda: stage(verb, str(config), [], False, True, even_if_worse=True), True)
    log.write_text("\n".join(noted))
    sys.stdout.flush()
    os._exit(code)


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of the model's tensors, the evaluation and every product."""
    paths = [path for name in RESULTS for path in [run / name, *(run / name).rglob("*")] if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main(folder: Path, config: Path) -> None:
    run, prepared, log = Path(load_run(config).runs).absolute() / config.stem, folder / "prepared", folder / "log"
    assert carry_out(config, run, log, verb="ingest") == 0  # its own kills: test_cube_kill
    shutil.copytree(run, prepared)
    assert carry_out(config, run, log) == 0, log.with_suffix(".said").read_text()
    expected = digests(run)
    shutil.rmtree(run)
    shutil.copytree(prepared, run)
    killed = {name: os.WIFSIGNALED(carry_out(config, run, log, point)) for name, point in POINTS.items()}
    status, found = carry_out(config, run, log), digests(run)
    different = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
    said = log.with_suffix(".said").read_text()[-2000:] if status else ""
    result = {"killed": killed, "status": status, "different": different, "said": said}
    print(json.dumps(result))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import lightning  # noqa: F401  imported once here, so that no child has to
    import matplotlib.pyplot  # noqa: F401
    import rasterio  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    os.chdir(sys.argv[1])
    main(Path(sys.argv[1]), Path(sys.argv[2]))
