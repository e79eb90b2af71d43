"""The calls that use an app, ready to paste in three languages: the ids are filled in, the key stands as $KEY."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from evergrant.broker.connections.credential_fields import THE_KEY
from evergrant.db import OutboundApp, Project

LANGUAGES = {"curl": "curl", "python": "Python", "javascript": "JavaScript"}
"""Languages, by how an address calls them."""
OUTBOUND = "/v1/mgmt/outbound"
USER = "USER_ID"
CONFIRMATION = "CONFIRMATION"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API about one app."""

    base: str
    """evergrant's own address, without a slash at its end."""
    project_id: str
    path: str
    """What follows `OUTBOUND`."""
    body: dict[str, Any]
    answer: tuple[str, ...] = ()
    """Where in the answer stands what the caller wants."""

    @property
    def url(self) -> str:
        """Where the call goes."""
        return f"{self.base}{OUTBOUND}/{self.path}"

    def text(self, language: str) -> str:
        """Return the call in a language of `LANGUAGES`."""
        return {"curl": self._curl, "python": self._python, "javascript": self._javascript}[language]()

    def _curl(self) -> str:
        body = _json(self.body, 4).replace("'", "'\\''")
        return f'curl -sS "{self.url}" \\\n  -H "Authorization: Bearer {self.project_id}:$KEY" \\\n  --json \'{body}\''

    def _python(self) -> str:
        wanted = "".join(f'["{name}"]' for name in self.answer)
        last = f"print(answer.raise_for_status().json(){wanted})" if wanted else "answer.raise_for_status()"
        return (
            f"import os\n\nimport httpx\n\nanswer = httpx.post(\n"
            f'    "{self.url}",\n'
            f'    headers={{"Authorization": f"Bearer {self.project_id}:{{os.environ[\'KEY\']}}"}},\n'
            f"    json={_json(self.body, 8, 4)},\n)\n{last}"
        )

    def _javascript(self) -> str:
        wanted = "".join(f".{name}" for name in self.answer)
        last = f"\nconsole.log((await answer.json()){wanted});" if wanted else ""
        return (
            f'const answer = await fetch("{self.url}", {{\n  method: "POST",\n  headers: {{\n'
            f"    Authorization: `Bearer {self.project_id}:${{process.env.KEY}}`,\n"
            f'    "Content-Type": "application/json",\n  }},\n'
            f"  body: JSON.stringify({_json(self.body, 4)}),\n}});\n"
            f"if (!answer.ok) throw new Error(await answer.text());{last}"
        )


def fetching(base: str, app: OutboundApp, *, headers: bool = False) -> Call:
    """Return the call that fetches a user's token, or the headers that carry what takes more than one."""
    answer = ("token", "headers" if headers else "accessToken")
    return Call(base, app.project_id, "app/user/token/latest", _owned(app), answer)


def uploading(base: str, app: OutboundApp, fields: Collection[str], variables: Collection[str]) -> Call:
    """Return the call that stores a user's key, or credentials of several `fields`, with what belongs to them."""
    details = {"details": {name: name.upper() for name in variables}} if variables else {}
    if list(fields) == [THE_KEY]:
        body = {**_owned(app), "apiKey": "KEY_FROM_THE_PROVIDER", **details}
        return Call(base, app.project_id, "app/user/apikey/upload", body)
    body = {**_owned(app), "fields": {name: name.upper() for name in fields}, **details}
    return Call(base, app.project_id, "app/user/credentials/upload", body)


def connecting(base: str, app: OutboundApp, project: Project) -> Call:
    """Return the call that begins a connect trip."""
    body = _owned(app)
    if project.redirect_origins and not app.default_redirect_url:
        body["options"] = {"redirectUrl": f"{project.redirect_origins[0]}/connected"}
    return Call(base, app.project_id, "app/connect", body, ("url",))


def confirming(base: str, app: OutboundApp) -> Call:
    """Return the call that says who came back from a connect trip."""
    body = {"confirmation": CONFIRMATION, "userId": USER}
    return Call(base, app.project_id, "app/connect/confirm", body)


def with_sdk(base: str, app: OutboundApp, language: str) -> str:
    """Return how a published SDK fetches a user's token; empty where there is none for this language."""
    whose = ", ".join(_json(text) for text in (app.id, USER, app.tenant_id) if text)
    if language == "python":
        return (
            f"import os\n\nfrom descope import DescopeClient\n\nclient = DescopeClient(\n"
            f'    project_id="{app.project_id}",\n    management_key=os.environ["KEY"],\n    base_url="{base}",\n)\n'
            f"answer = client.mgmt.outbound_application.fetch_token({whose})\n"
            f'print(answer["token"]["accessToken"])'
        )
    if language == "javascript":
        return (
            f'import DescopeClient from "@descope/node-sdk";\n\nconst client = DescopeClient({{\n'
            f'  projectId: "{app.project_id}",\n  managementKey: process.env.KEY,\n  baseUrl: "{base}",\n}});\n'
            f"const answer = await client.management.outboundApplication.fetchToken({whose});\n"
            f"if (!answer.ok) throw new Error(answer.error.errorMessage);\nconsole.log(answer.data.accessToken);"
        )
    return ""


def _owned(app: OutboundApp) -> dict[str, Any]:
    body: dict[str, Any] = {"appId": app.id, "userId": USER}
    return {**body, "tenantId": app.tenant_id} if app.tenant_id else body


def _json(value: Any, indented: int = 0, step: int = 2) -> str:
    """Write JSON, which is also Python and JavaScript: a line for each member, `indented` by so many blanks."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    members = [f"{_json(name)}: {_json(one, indented + step, step)}" for name, one in value.items()]
    if len(members) == 1:
        return f"{{{members[0]}}}"
    begin = f"\n{' ' * indented}"
    return f"{{{begin}{f',{begin}'.join(members)}\n{' ' * (indented - step)}}}"
