"""What an operator should change about an app while it still works: shown with the app, and by `evergrant doctor`."""

from dataclasses import dataclass
from datetime import date

from evergrant.broker.apps.retirements import endings
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp


@dataclass(frozen=True, slots=True)
class AdviceOnApp:
    """One thing to change about an app: `code` is for programs, `text` says what to do."""

    code: str
    text: str
    is_late: bool = False
    """What it warned of has come."""


def warnings_about(app: OutboundApp, template: Template | None, *, today: date) -> list[AdviceOnApp]:
    """Return what to change about an app, whose catalogue entry is `template`; nothing for most."""
    return [AdviceOnApp(end.code, end.text, end.on <= today) for end in endings(app, template, today=today)]
