"""`task: follow_up`: what changed between the visits of patients. Schema, checks, and the objects that it describes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.privacy import PrivacyConfig
from configs.run import Run
from configs.visits import RegistrationConfig, VisitsSource


class FollowUpRun(Run):
    """Visits of patients on one grid: what is new, growing, gone."""

    task: Literal["follow_up"]
    source: VisitsSource = Field(description="where the visits are")
    registration: RegistrationConfig = RegistrationConfig()
    privacy: PrivacyConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="default: the images are de-identified, with the defaults of this section",
    )
