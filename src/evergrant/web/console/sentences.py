"""Records of the audit log as sentences: who did what, in words; the record itself stands beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evergrant.db import AuditEvent


@dataclass(frozen=True, slots=True)
class Telling:
    """How one action is told."""

    icon: str
    kind: str
    """`good`, `warn`, `bad`, or empty for what is neither."""
    text: str
    """With `{who}`, `{owner}` (whose connection), `{app}`, `{address}`, and whatever the record's data has."""


_FOR_OWNER = "the connection of {owner} to {app}"
TELLINGS: Mapping[str, Telling] = {
    "accounts.link_made": Telling("link-2", "", "{who} made a link to the connected accounts of {owner}"),
    "accounts.opened": Telling("user", "", "{owner} opened their connected accounts"),
    "app.created": Telling("blocks", "", "{who} made the app {app}"),
    "app.updated": Telling("pencil", "", "{who} changed {fields} of {app}"),
    "app.deleted": Telling("trash-2", "", "{who} deleted the app {app}"),
    "app.logo_changed": Telling("image-plus", "", "{who} gave {app} another logo"),
    "app.logo_removed": Telling("image-plus", "", "{who} took the logo of {app} away"),
    "app.registered": Telling("plug-zap", "", "evergrant registered itself at the provider of {app}"),
    "approval.requested": Telling("clock", "", "{who} asked {owner} to approve a request to {app}"),
    "approval.approved": Telling("circle-check", "good", "{who} approved a request of an agent to {app} for {owner}"),
    "approval.refused": Telling("circle-x", "warn", "{who} refused a request of an agent to {app} for {owner}"),
    "approval.used": Telling("circle-check", "", "{who} made the approved request to {app} for {owner}"),
    "audit.pruned": Telling("scroll-text", "", "evergrant removed the records before {before}"),
    "branding.logo_changed": Telling("image-plus", "", "{who} gave the project another logo"),
    "branding.logo_removed": Telling("image-plus", "", "{who} took the project's logo away"),
    "branding.updated": Telling("eye", "", "{who} changed how the pages look that users see"),
    "calls.pruned": Telling(
        "scroll-text", "", "evergrant removed {count} calls, of before {before}, from the call log"
    ),
    "calls.sealed": Telling("lock-keyhole", "", "evergrant sealed {count} calls of the call log"),
    "connect.started": Telling("link-2", "", "{who} began to connect {owner} to {app}"),
    "connect.wrong_user": Telling(
        "circle-x", "warn", "{signedInAs} opened a link of an agent that is for {owner}, and was sent away"
    ),
    "connections.exported": Telling("download", "", "{who} exported a list of {count} connections"),
    "console.link_made": Telling("link-2", "", "{who} made a sign-in link for one {role}"),
    "console.sign_in_refused": Telling("circle-x", "warn", "{operator} was not let in at the console"),
    "console.others_signed_out": Telling("log-out", "", "{who} ended all other sessions"),
    "console.signed_in": Telling("user", "", "{operator} signed in"),
    "console.signed_out": Telling("log-out", "", "{who} ended the session of {operator}"),
    "grant.connected": Telling("link-2", "good", "{owner} connected {app}"),
    "grant.connect_failed": Telling("circle-x", "warn", "{owner} did not connect {app}: {err}"),
    "grant.confirmed": Telling("circle-check", "good", f"{{who}} confirmed {_FOR_OWNER}"),
    "grant.confirmation_refused": Telling("circle-x", "warn", f"{{who}} refused {_FOR_OWNER}: somebody else came back"),
    "grant.reauthorization_required": Telling("unplug", "warn", "The consent of {owner} at {app} has ended"),
    "grant.superseded": Telling("refresh-cw", "", "A newer consent took the place of a dead one of {owner} at {app}"),
    "issuer.created": Telling("fingerprint", "", "{who} made {issuer} a trusted issuer"),
    "issuer.deleted": Telling("fingerprint", "", "{who} removed the trusted issuer {issuer}"),
    "call.denied": Telling("gavel", "warn", "{who} was refused a call of {app}"),
    "call.token_echoed": Telling("gavel", "warn", "{app} sent a token back, which was overwritten for {who}"),
    "key.created": Telling("key-round", "", "{who} made the key {name}"),
    "key.updated": Telling("key-round", "", "{who} changed {fields} of the key {key}"),
    "key.disabled": Telling("key-round", "", "{who} disabled the key {name}"),
    "key.enabled": Telling("key-round", "", "{who} enabled the key {name}"),
    "key.deleted": Telling("key-round", "", "{who} deleted the key {name}"),
    "key.used_from_new_address": Telling("key-round", "", "The key {key} was used from a new address, {address}"),
    "keyring.rewrapped": Telling("lock-keyhole", "", "{who} wrapped the data keys with the first master key"),
    "keyring.rotated": Telling("lock-keyhole", "", "{who} sealed everything anew, with a new data key"),
    "policy.created": Telling("gavel", "", "{who} made a policy for {app}"),
    "policy.deleted": Telling("gavel", "", "{who} deleted a policy of {app}"),
    "policy.denied": Telling("gavel", "warn", "A policy of {app} refused {who}"),
    "project.created": Telling("house", "", "{who} made this project"),
    "project.first_steps_dismissed": Telling("check", "", "{who} put the first steps away"),
    "project.renamed": Telling("settings", "", "{who} gave this project another name"),
    "project.embed_origins_changed": Telling("settings", "", "{who} changed the origins that may embed pages"),
    "project.redirect_origins_changed": Telling("settings", "", "{who} changed the redirect origins"),
    "project.closed": Telling("trash-2", "", "{who} deleted this project"),
    "project.shredded": Telling("trash-2", "", "{who} destroyed this project's data keys"),
    "project.restored": Telling("house", "warn", "The database came back from a backup of {takenAt}"),
    "session.created": Telling("bot", "", "{who} let the agent {agentId} act for {owner}"),
    "session.revoked": Telling("bot", "", "{who} revoked sessions of agents: {total}"),
    "token.deleted": Telling("trash-2", "", f"{{who}} deleted {_FOR_OWNER}"),
    "token.refresh_token_fetched": Telling("eye", "", "{who} was given the refresh token of {owner} at {app}"),
    "token.tested": Telling("plug-zap", "", "{who} asked the API of {app} whether the credential of {owner} works"),
    "token.uploaded": Telling("arrow-right", "", f"{{who}} uploaded {_FOR_OWNER}"),
    "token.revoked": Telling("unplug", "", "The provider of {app} revoked a deleted connection of {owner}"),
    "token.revocation_failed": Telling(
        "unplug", "warn", "The provider of {app} did not revoke a deleted connection of {owner}"
    ),
    "webhook.created": Telling("webhook", "", "{who} made a webhook to {host}"),
    "webhook.updated": Telling("webhook", "", "{who} changed {fields} of a webhook"),
    "webhook.deleted": Telling("webhook", "", "{who} deleted a webhook"),
    "webhook.disabled": Telling("webhook", "bad", "evergrant disabled a webhook, whose receiver is {reason}"),
    "webhook.secret_rotated": Telling("webhook", "", "{who} gave a webhook a new secret"),
}
"""By action. What is not here was reported by the operator's own application."""
REPORTED = Telling("bell", "", "{who} reported {action}")
ACTORS = {"cli": "The command line", "evergrant": "evergrant", "": "evergrant"}


def telling_of(event: AuditEvent) -> Telling:
    """Return how a record is told."""
    return TELLINGS.get(event.action, REPORTED)


def sentence_of(event: AuditEvent, names: Mapping[str, str] | None = None) -> Markup:
    """Return a record as a sentence, without a full stop.

    `names` are those of apps and keys, by `app:<id>` and `key:<id>`; who is not among them is called by the id.
    """
    known = names or {}
    values = _Values({name: _short(value) for name, value in event.data.items()})
    values |= {
        "who": _who(event, known),
        "owner": _owner(event),
        "app": _strong(known.get(f"app:{event.app_id}", event.app_id) or "an app"),
        "key": _strong(
            known.get(f"key:{event.data.get('keyId', '')}") or event.data.get("keyId") or "that it is about"
        ),
        "address": event.remote_address,
        "action": Markup("<code>{}</code>").format(event.action),
    }
    return Markup(telling_of(event).text).format_map(values)  # noqa: S704 - our own words; what is filled in is escaped


class _Values(dict[str, Any]):
    """What a telling can name. A record of an earlier version may lack it."""

    def __missing__(self, name: str) -> str:
        return "something"


def _strong(text: object) -> Markup:
    return Markup("<strong>{}</strong>").format(text)


def _who(event: AuditEvent, names: Mapping[str, str]) -> Markup | str:
    actor = event.actor
    if actor in ACTORS:
        return ACTORS[actor]
    kind, _, rest = actor.partition(":")
    if kind == "key":
        return Markup("The key {}").format(_strong(names.get(actor, rest)))
    if kind == "session":
        agent = event.data.get("agentId")
        return Markup("The agent {}").format(_strong(agent)) if agent else "An agent"
    return _strong(rest or actor)


def _owner(event: AuditEvent) -> Markup | str:
    if event.user_id and event.tenant_id:
        return Markup("{} in {}").format(_strong(event.user_id), _strong(event.tenant_id))
    if event.user_id:
        return _strong(event.user_id)
    return Markup("the tenant {}").format(_strong(event.tenant_id)) if event.tenant_id else "somebody"


def _short(value: object) -> Markup:
    """Write a value of a record: lists as words, and nothing longer than a line."""
    if isinstance(value, list):
        text = " and ".join([", ".join(map(str, value[:-1])), str(value[-1])] if len(value) > 1 else map(str, value))
        return _strong(text or "nothing")
    return _strong(value)
