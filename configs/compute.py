"""Where work runs: the section `compute` of every run's config (docs/scale.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from configs.paths import CONNECT, WRITE
from configs.schema import Address, CubeUri, Finding, InputPath, Sections, Strict
from pipelines.compute import Compute, Tls, is_here

Staging = Annotated[CubeUri | None, WRITE]
STAGING: Staging = Field(
    None,
    exclude_if=lambda value: value is None,
    description="where tiles are kept until all are there: a folder or s3://bucket/prefix that all workers can write; "
    "default: runs/NAME/staging",
)


def has_port(address: str) -> bool:
    try:
        return urlsplit(address).port is not None
    except ValueError:  # it is no number, or too large
        return False


class TlsConfig(Strict):
    """The files (PEM) by which client, scheduler and workers know each other."""

    ca: InputPath = Field(description="the authority that signed the certificates of all of them")
    cert: InputPath = Field(description="the certificate of this program")
    key: InputPath = Field(description="its private key")


class ComputeConfig(Strict):
    """Where tiles and samples are computed, and scenes written: here, in processes of this machine, or on a Dask cluster."""

    kind: Literal["threads", "processes", "dask"] | None = Field(
        None, description="default: dask where an address is given, else threads of this process"
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="threads or processes of this machine; default: one thread, or one process per core (with `gpus` one); with "
        "an address the scheduler's workers count",
    )
    address: Annotated[Address | None, CONNECT] = Field(
        None, description="of a Dask scheduler, such as tls://scheduler:8786; default of `kind: dask`: workers on this machine"
    )
    gpus: bool = Field(
        False, description="predict on GPUs: the one that this program sees, or workers of Dask that have the resource GPU"
    )
    tls: TlsConfig | None = Field(None, description="certificates; required for a scheduler on another machine")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.address is None:
            if self.tls is not None:
                yield Finding(("compute", "tls"), "certificates are for a scheduler, and none is named", "add compute.address")
            return
        key = ("compute", "address")
        scheme, host = urlsplit(self.address).scheme, urlsplit(self.address).hostname or ""
        if self.kind not in (None, "dask"):
            yield Finding(("compute", "kind"), f"{self.kind} takes no address", "write kind: dask, or take the address out")
        if scheme not in ("tcp", "tls") or not host or not has_port(self.address):
            yield Finding(key, f"{self.address!r} is no address of a scheduler", "tcp://127.0.0.1:8786, or tls://host:8786")
        elif scheme == "tcp" and not is_here(host):
            problem = f"{self.address} is on another machine: whoever reaches its port could execute programs"
            yield Finding(key, problem, "use tls:// and compute.tls (docs/scale.md)")
        if scheme == "tls" and self.tls is None:
            yield Finding(key, "tls:// needs certificates", "add compute.tls with ca, cert and key")

    def build(self) -> Compute:
        """Where work runs."""
        kind = self.kind or ("dask" if self.address else "threads")
        tls = Tls(self.tls.ca, self.tls.cert, self.tls.key) if self.tls else None
        return Compute(kind, self.workers, self.address or "", self.gpus, tls)
