"""A client of the practice provider, as an application and its user's browser drive one."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from fastapi import FastAPI

from evergrant.practice.provider import create_provider
from evergrant.practice.state import ProviderState

ISSUER = "http://provider.test"
REDIRECT_URI = "http://client.test/callback"
VERIFIER = "a-code-verifier-that-is-long-enough-for-rfc-7636"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass
class PracticeClient:
    """`shop`, registered at a provider of its own."""

    app: FastAPI = field(
        default_factory=lambda: create_provider(
            issuer=ISSUER,
            clients={"shop": "shop secret:%", "other": "other-secret"},
            redirect_uris=[REDIRECT_URI],
        )
    )

    def __post_init__(self) -> None:
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url=ISSUER)

    @property
    def provider(self) -> ProviderState:
        state: ProviderState = self.app.state.provider
        return state

    async def open_consent_page(self, **changes: str | None) -> httpx2.Response:
        """GET /authorize with a valid request, changed; None leaves a parameter out."""
        query = {
            "client_id": "shop",
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "openid contacts.readonly",
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        return await self.http.get("/authorize", params={k: v for k, v in query.items() if v is not None})

    async def decide(
        self,
        page: httpx2.Response,
        decision: str = "allow",
        *,
        person: str = "practice-ada",
        scopes: Sequence[str] = ("openid", "contacts.readonly"),
    ) -> httpx2.Response:
        """Press Allow or Deny."""
        ticket = re.search(r'name="ticket" value="([^"]+)"', page.text)
        assert ticket, page.text
        form = {"ticket": ticket[1], "person": person, "decision": decision, "scope": list(scopes)}
        return await self.http.post("/authorize/decision", data=form)

    async def code(self, *, scopes: Sequence[str] = ("openid", "contacts.readonly"), **changes: str | None) -> str:
        """Go through the browser's part and return the code."""
        page = await self.open_consent_page(**changes)
        return parameters(await self.decide(page, scopes=scopes))["code"]

    async def token(self, **form: str) -> httpx2.Response:
        """POST /token with client_secret_post."""
        credentials = {"client_id": "shop", "client_secret": "shop secret:%"}
        return await self.http.post("/token", data={**credentials, **form})

    async def redeem(self, code: str, **changes: str) -> httpx2.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
        return await self.token(**{**form, "code_verifier": VERIFIER, **changes})

    async def refresh(self, refresh_token: str, **changes: str) -> httpx2.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **changes)

    async def connect(self, **changes: Any) -> dict[str, Any]:
        """Consent and redeem; return the token response."""
        answer = await self.redeem(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def contacts(self, access_token: str) -> httpx2.Response:
        return await self.http.get("/api/contacts", headers={"Authorization": f"Bearer {access_token}"})


def parameters(redirect: httpx2.Response) -> dict[str, str]:
    """Return the parameters of a redirect to the client, which it must be."""
    assert redirect.status_code == 303, redirect.text
    location = redirect.headers["location"]
    assert location.startswith(f"{REDIRECT_URI}?")
    return dict(parse_qsl(urlsplit(location).query))
