"""The steps of a test connection: what each is called, and how it went."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self


class StepName(StrEnum):
    """What is tested, in the order in which a trip meets it."""

    DEFINITION = "definition"
    METADATA = "metadata"
    ENDPOINTS = "endpoints"
    CLIENT = "client"
    LEFT = "left"
    CAME_BACK = "cameBack"
    STATE = "state"
    CODE = "code"
    REFRESH_TOKEN = "refreshToken"
    SCOPES = "scopes"
    SUBJECT = "subject"
    REFRESHED = "refreshed"
    API = "api"
    ENDED = "ended"


TITLES: Mapping[StepName, str] = {
    StepName.DEFINITION: "Definition",
    StepName.METADATA: "Published metadata",
    StepName.ENDPOINTS: "Endpoints",
    StepName.CLIENT: "Client accepted",
    StepName.LEFT: "Left for the provider",
    StepName.CAME_BACK: "Came back",
    StepName.STATE: "State and issuer",
    StepName.CODE: "Code exchanged",
    StepName.REFRESH_TOKEN: "Refresh token received",
    StepName.SCOPES: "Scopes as asked",
    StepName.SUBJECT: "Account",
    StepName.REFRESHED: "Refreshed once",
    StepName.API: "API answers",
    StepName.ENDED: "Revoked and deleted",
}
BEFORE_THE_TRIP = (StepName.DEFINITION, StepName.METADATA, StepName.ENDPOINTS, StepName.CLIENT)


class StepState(StrEnum):
    """How a step went."""

    GOOD = "good"
    WARNING = "warning"
    """It works, and somebody should know something about it."""
    BAD = "bad"
    WAITING = "waiting"
    """It is under way."""
    SKIPPED = "skipped"
    """There is nothing to do here for this app."""
    OPEN = "open"
    """The test did not get there, or not yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, with what came of it and what to do."""

    name: StepName
    state: StepState
    text: str = ""
    """What came of it, as a sentence."""
    remedy: str = ""
    """What to do about it."""
    error: str = ""
    """The provider's error code, or ours."""
    at: str = ""
    """When, as ISO 8601; empty where it has not been."""
    milliseconds: int | None = None
    """How long it took, where that was measured."""

    @property
    def title(self) -> str:
        """What the step is called on pages."""
        return TITLES[self.name]

    @property
    def moment(self) -> datetime | None:
        """When it was."""
        return datetime.fromisoformat(self.at) if self.at else None

    @classmethod
    def of(cls, name: StepName, state: StepState, text: str = "", *, at: datetime, **rest: Any) -> Self:
        """Make a step that was taken at a moment."""
        return cls(name, state, text, at=at.isoformat(timespec="milliseconds"), **rest)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a step as it is stored."""
        return cls(**{**value, "name": StepName(value["name"]), "state": StepState(value["state"])})


def to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Write steps as they are stored."""
    return [asdict(step) for step in steps]


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return all steps in their order; of two of one name the later counts, and what is missing is open."""
    known = {step.name: step for step in steps}
    return tuple(known.get(name) or Step(name, StepState.OPEN) for name in StepName)
