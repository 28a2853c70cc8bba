"""De-identifies files in worker processes, several at once: what decodes and parses files of strangers (see `isolation`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipelines.errors import SceneRefused
from pipelines.privacy.jobs import Job, Result, deidentify_file
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.sources.isolation import Limits, isolated

FILES_PER_CALL = 16
NOT_READ = "its decoder was killed, took too long or needed too much memory; it is not passed on"


def deidentify_in_workers(jobs: Sequence[Job], settings: PrivacySettings) -> Iterator[Result]:
    """Results of `deidentify_file` in the order of `jobs`. A file whose worker fails is refused, the others are not."""
    at_once = os.cpu_count() or 1
    parts = [jobs[first : first + FILES_PER_CALL] for first in range(0, len(jobs), FILES_PER_CALL)]
    pool = ThreadPoolExecutor(at_once)
    try:
        for results in pool.map(partial(_deidentify, settings=settings, at_once=at_once), parts):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _deidentify(jobs: Sequence[Job], settings: PrivacySettings, at_once: int) -> list[Result]:
    """Files together in one call; each alone if that fails."""
    try:
        paths = [job.path for job in jobs]
        return isolated(_deidentify_here, jobs, settings, label="", paths=paths, limits=Limits(shared_by=at_once))
    except SceneRefused:  # its message names the file
        if len(jobs) > 1:
            return [result for job in jobs for result in _deidentify([job], settings, at_once)]
        return [PrivacyRefusal(jobs[0].file_id, "unexpected", NOT_READ)]


def _deidentify_here(jobs: Sequence[Job], settings: PrivacySettings) -> list[Result]:
    return [deidentify_file(job, settings) for job in jobs]
