"""Branding: how a project's pages look to its users. It says nothing about what they do."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from pydantic.alias_generators import to_camel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.audit.record import record
from evergrant.broker.projects.accents import COLOUR, USUAL, is_readable, nearest_readable
from evergrant.broker.projects.pictures import Picture, check_picture
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.redirects import origin_of
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import Branding
from evergrant.errors import InvalidValue, NotFound

CORNERS = ("square", "soft", "round")
MODES = ("light", "dark", "both")
LOCALES = ("en", "de", "fr")
MAX_SENTENCE, MAX_URL = 200, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What an operator decides, beside the logo. The defaults are evergrant's own."""

    accent_light: str = ""
    """`#rrggbb`; empty for evergrant's."""
    accent_dark: str = ""
    """Empty: the light one, as near as dark pages can show it."""
    corners: str = "soft"
    mode: str = "both"
    sentence: str = ""
    """The project's own, above what it asks for. Text, no markup."""
    privacy_url: str = ""
    help_url: str = ""
    footer: bool = True
    locale: str = "en"
    """For visitors whose language evergrant does not speak."""

    def accent(self, mode: str) -> str:
        """Return the accent of `light` or `dark`, which is readable."""
        if mode == "light":
            return self.accent_light or USUAL["light"]
        if self.accent_dark or not self.accent_light:
            return self.accent_dark or USUAL["dark"]
        return nearest_readable(self.accent_light, "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """A project's looks as they are stored."""

    looks: Looks
    has_logo: bool
    version: str
    """What the addresses of theme and logo change with; empty where nothing was ever changed."""
    updated_at: datetime | None


NO_BRAND = Brand(looks=Looks(), has_logo=False, version="", updated_at=None)
_NAMES = tuple(field.name for field in fields(Looks))
_COLUMNS = [getattr(Branding, name) for name in (*_NAMES, "logo_type", "version", "updated_at")]


async def brand_of(broker: Broker, project_id: str) -> Brand:
    """Return a project's looks, from memory for a few seconds: every page of a user asks."""

    async def read() -> Brand:
        async with broker.database.read() as session:
            row = (await session.execute(select(*_COLUMNS).where(Branding.project_id == project_id))).one_or_none()
        if row is None:
            return NO_BRAND
        looks = Looks(**{name: getattr(row, name) for name in _NAMES})
        return Brand(looks=looks, has_logo=bool(row.logo_type), version=row.version, updated_at=row.updated_at)

    brand: Brand = await broker.brands.get_or_read(project_id, read)
    return brand


def looks_problems(looks: Looks) -> list[tuple[str, str]]:
    """Check looks, and return what is wrong as `(field, problem)` pairs, by the names on the wire."""
    problems = [("accentLight", looks.accent_light, "light"), ("accentDark", looks.accent_dark, "dark")]
    found = [(field, problem) for field, accent, mode in problems if (problem := accent_problem(accent, mode))]
    found += [
        (field, f"use {', '.join(choices)}")
        for field, value, choices in (
            ("corners", looks.corners, CORNERS),
            ("mode", looks.mode, MODES),
            ("locale", looks.locale, LOCALES),
        )
        if value not in choices
    ]
    if len(looks.sentence) > MAX_SENTENCE:
        found.append(("sentence", f"use at most {MAX_SENTENCE} characters"))
    elif any(c < " " for c in looks.sentence):
        found.append(("sentence", "write it in one line"))
    for field, url in (("privacyUrl", looks.privacy_url), ("helpUrl", looks.help_url)):
        found += _link_problems(field, url)
    return found


def accent_problem(accent: str, mode: str) -> str:
    """Return what is wrong with an accent for `light` or `dark` pages, and what to take instead; empty: nothing."""
    if not accent:
        return ""
    if not COLOUR.fullmatch(accent):
        return "use six hexadecimal digits, like #0f766e"
    if is_readable(accent, mode):
        return ""
    nearest = nearest_readable(accent, mode)
    return f"people could not read it on {mode} pages; the nearest colour that they can read is {nearest}"


def _link_problems(field: str, url: str) -> Sequence[tuple[str, str]]:
    if not url:
        return ()
    if len(url) > MAX_URL:
        return ((field, f"use at most {MAX_URL} characters"),)
    try:
        origin = origin_of(url, field=field)
    except InvalidValue as error:
        return [(entry["field"], entry["problem"]) for entry in error.details["fields"]]
    return () if origin.startswith("https://") else ((field, "use https"),)


def require_branding(principal: Principal) -> None:
    """Check that a key may change what all users of its project see.

    Raises:
        PermissionDenied: it lacks `apps:write`, or is limited, and this would reach further or last longer.
    """
    made = Authority(permissions=frozenset({Permission.APPS_WRITE}))
    require_no_more(principal, made, what="its project's branding")


async def change_looks(broker: Broker, principal: Principal, looks: Looks, *, now: datetime) -> Brand:
    """Replace a project's looks, all but the logo. Users see it within 5 seconds.

    Raises:
        PermissionDenied: as `require_branding`.
        InvalidValue: a field cannot be used; nothing is changed.
    """
    require_branding(principal)
    if problems := looks_problems(looks):
        raise InvalidValue.of(*problems)
    async with broker.database.write() as session:
        row = await _locked_branding(session, principal.project_id)
        changed = [name for name in _NAMES if getattr(row, name) != getattr(looks, name)]
        for name in changed:
            setattr(row, name, getattr(looks, name))
        _renew(row, now)
        data = {"fields": sorted(to_camel(name) for name in changed)}
        await record(session, principal.project_id, "branding.updated", data=data)
    return await _as_changed(broker, principal.project_id)


async def set_project_logo(broker: Broker, principal: Principal, content: bytes | None, *, now: datetime) -> Brand:
    """Store a project's logo, or remove it with None.

    Raises:
        PermissionDenied: as `require_branding`.
        InvalidValue: it is no picture that may be stored.
    """
    require_branding(principal)
    picture = check_picture(content, field="logo") if content is not None else Picture(b"", "")
    async with broker.database.write() as session:
        row = await _locked_branding(session, principal.project_id)
        row.logo, row.logo_type = picture.content or None, picture.media_type
        _renew(row, now)
        action = "branding.logo_changed" if picture.content else "branding.logo_removed"
        data = {"sha256": hashlib.sha256(picture.content).hexdigest()} if picture.content else {}
        await record(session, principal.project_id, action, data=data)
    return await _as_changed(broker, principal.project_id)


async def load_project_logo(broker: Broker, project_id: str) -> tuple[Picture, str]:
    """Return a project's logo and its version.

    Raises:
        NotFound: it has none.
    """
    query = select(Branding.logo, Branding.logo_type, Branding.version).where(Branding.project_id == project_id)
    async with broker.database.read() as session:
        row = (await session.execute(query)).one_or_none()
    if row is None or row.logo is None:
        raise NotFound
    return Picture(row.logo, row.logo_type), row.version


async def _locked_branding(session: AsyncSession, project_id: str) -> Branding:
    project = await load_project(session, project_id)
    await session.refresh(project, with_for_update={"key_share": True})  # two that are first would both insert
    row = await session.get(Branding, project_id)
    if row is None:
        row = Branding(project_id=project_id, logo_type="", **asdict(Looks()))
        session.add(row)
    return row


def _renew(row: Branding, now: datetime) -> None:
    said = "\n".join(str(getattr(row, name)) for name in _NAMES).encode() + (row.logo or b"")
    row.version, row.updated_at = hashlib.sha256(said).hexdigest()[:12], now


async def _as_changed(broker: Broker, project_id: str) -> Brand:
    broker.brands.forget(project_id)
    return await brand_of(broker, project_id)
