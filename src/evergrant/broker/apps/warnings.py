"""What an operator should change about an app while it still works: shown with the app, and by `evergrant doctor`."""

from dataclasses import dataclass
from datetime import date

from evergrant.app_types import AppType
from evergrant.broker.apps.provider_client import own_callback_path, public_origin
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


def warnings_about(app: OutboundApp, template: Template | None, *, public_url: str, today: date) -> list[AdviceOnApp]:
    """Return what to change about an app, whose catalogue entry is `template`; nothing for most.

    `public_url` is the installation's.
    """
    ends = [AdviceOnApp(end.code, end.text, end.on <= today) for end in endings(app, template, today=today)]
    return [*ends, *_shared_callback(app, public_url=public_url), *_unskipped_page(app)]


def _shared_callback(app: OutboundApp, *, public_url: str) -> list[AdviceOnApp]:
    """Mix-up: at a shared address, one app's answer can be passed off as another's (RFC 9700 section 4.4.2)."""
    if app.own_callback or not AppType(app.app_type).is_consented:
        return []
    address = public_origin(public_url, app) + own_callback_path(app)
    if app.use_dcr and (app.registered_redirect_uri or not app.client_id):
        first = (
            "the next connect registers it anew, and the server may refuse to refresh the connections that there are"
        )
    else:
        first = f"register {address} at the provider, beside the present one"
    text = f"It shares its callback address with other apps, where answers can be mixed up. Give it its own: {first}; "
    return [AdviceOnApp("shared_callback", f"{text}then update the app with ownCallback true.")]


def _unskipped_page(app: OutboundApp) -> list[AdviceOnApp]:
    """Without a page, and without a word on who came back, a link connects whoever's browser is sent along it."""
    if not app.skip_consent_page or app.require_confirmation:
        return []
    text = "skipConsentPage does nothing without requireConfirmation, so users see the consent page: turn both on, or "
    return [AdviceOnApp("skip_consent_page", f"{text}skipConsentPage off.")]
