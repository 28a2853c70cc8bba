"""Work that takes its time, for tests of `pipelines.compute`; as a program it prints the ids of its worker processes."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.compute import Compute, carry_out
from pipelines.errors import RequestError


@dataclass(frozen=True)
class Waiting:
    """Waits for as long as the piece says, and returns the number of its process."""

    key: str = "waiting"
    on_gpu: bool = False

    def open(self) -> Callable[[float], int]:
        return self.wait

    def limit(self, threads: int) -> None:
        pass

    @staticmethod
    def wait(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()


class Closed(Waiting):
    """Cannot be opened."""

    def open(self) -> Callable[[float], int]:
        raise RequestError("there is nothing to open")


if __name__ == "__main__":
    for number in carry_out(Waiting(), [0.05] * 20 + [60.0] * 20, Compute("processes", workers=2)):
        print(number, flush=True)
    sys.exit(0)
