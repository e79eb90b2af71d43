"""JWTs of users in every form that has fooled somebody: none is believed."""

import base64
import hmac
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.infra.installation import APP_ID, SCOPES, Installation
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.people import call, connect, fetch, refused
from tests.infra.rows import dump

DEEP = 3_000


def part(value: Any) -> str:
    """Write one part of a JWT."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_claims(idp: Issuer) -> dict[str, str]:
    """Return tokens that the issuer did sign, and that are not for this, by what is wrong with them."""
    now = int(time.time())
    claims: dict[str, dict[str, Any]] = {
        "another issuer": {"iss": "https://attacker.example"},
        "an issuer that only begins alike": {"iss": f"{idp.url}.attacker.example"},
        "an issuer with a slash": {"iss": f"{idp.url}/"},
        "no issuer": {"iss": ...},
        "a list of issuers": {"iss": [idp.url]},
        "another audience": {"aud": "https://other.example.com"},
        "an audience that only begins alike": {"aud": f"{AUDIENCE}/"},
        "audiences, none of them ours": {"aud": ["a", "b"]},
        "no audience": {"aud": ...},
        "an object as audience": {"aud": {AUDIENCE: True}},
        "expired": {"exp": now - 1},
        "no end": {"exp": ...},
        "an end in words": {"exp": "never"},
        "an end that is true": {"exp": True},
        "no time yet": {"nbf": now + 300},
        "from the future": {"iat": now + 300},
        "nobody": {"sub": ...},
        "an empty user": {"sub": ""},
        "a number as user": {"sub": 7},
        "a list of users": {"sub": ["alice"]},
        "nothing as user": {"sub": None},
        "much too long": {"more": "x" * 20_000},
    }
    return {what: idp.access("alice", **changes) for what, changes in claims.items()}


def with_headers(idp: Issuer) -> dict[str, str]:
    """Return tokens that the issuer did not sign, by how they try to get around that."""
    claims = idp.claims("alice", scope="outbound.token.fetch")
    head, payload, signature = idp.access("alice").split(".")
    public = idp.rsa.as_pem(private=False)
    jwks = idp.rsa.as_dict(private=False)
    stranger = ECKey.generate_key("P-256", {"kid": "key-1"})
    jwk = stranger.as_dict(private=False)

    def signed_by_a_stranger(**header: Any) -> str:
        whole = {"alg": "ES256", "kid": "key-1", **header}
        said = f"{part({k: v for k, v in whole.items() if v is not ...})}.{payload}"
        # signed as it is, whatever a library would say to such a header
        whole_token = jwt.encode({"alg": "ES256", "kid": "key-1"}, claims, stranger)
        return f"{said}.{whole_token.rpartition('.')[2]}"

    def by_secret(secret: bytes, **header: Any) -> str:
        said = f"{part({'alg': 'HS256', **header})}.{payload}"
        return f"{said}.{part(hmac.digest(secret, said.encode(), 'sha256'))}"

    return {
        **{f"alg {name}": f"{part({'alg': name})}.{payload}." for name in ("none", "nOnE", "NONE", "")},
        "alg none with a signature": f"{part({'alg': 'none', 'kid': 'key-1'})}.{payload}.{signature}",
        "no alg": f"{part({'kid': 'key-1'})}.{payload}.{signature}",
        "a list of algs": f"{part({'alg': ['ES256'], 'kid': 'key-1'})}.{payload}.{signature}",
        "the public key as a secret": by_secret(public, kid="rsa-1"),
        "the public key's text as a secret": by_secret(json.dumps(jwks).encode(), kid="rsa-1"),
        "an empty secret": by_secret(b"", kid="key-1"),
        "a key of its own, same id": jwt.encode({"alg": "ES256", "kid": "key-1"}, claims, stranger),
        "a key of its own in the header": jwt.encode({"alg": "ES256", "jwk": jwk, "kid": "key-1"}, claims, stranger),
        "a key set of its own": signed_by_a_stranger(jku="https://attacker.example/jwks"),
        "a certificate of its own": signed_by_a_stranger(x5u="https://attacker.example/cert"),
        "a path as key id": signed_by_a_stranger(kid="../../../../dev/null"),
        "SQL as key id": signed_by_a_stranger(kid="' OR '1'='1"),
        "a number as key id": signed_by_a_stranger(kid=1),
        "an extension that must be understood": signed_by_a_stranger(crit=["exp"]),
        "a payload that is not encoded": signed_by_a_stranger(b64=False, crit=["b64"]),
        "altered claims": f"{head}.{part(claims | {'sub': 'bob'})}.{signature}",
        "no signature": f"{head}.{payload}.",
        "a signature of zeros": f"{head}.{payload}.{part(bytes(64))}",
        "five parts": ".".join([part({"alg": "dir", "enc": "A256GCM"}), "", part(b"iv"), part(b"text"), part(b"tag")]),
        "a deep header": f"{part(b'[' * DEEP + b']' * DEEP)}.{payload}.{signature}",
        "deep claims": f"{head}.{part(b'[' * DEEP + b']' * DEEP)}.{signature}",
        "claims that are a list": f"{head}.{part(b'[]')}.{signature}",
        "rubbish": "eyJ.x.y",
    }


def test_no_forged_token_of_a_user_is_believed(here: Installation, idp: Issuer) -> None:
    here.connected("alice")
    forms = with_claims(idp) | with_headers(idp)
    assert len(forms) >= 45
    before = dump(here.settings)
    body = {"appId": APP_ID, "userId": "alice", "scopes": SCOPES}
    for what, token in forms.items():
        for project in (None, ""):
            answer = call(here, "app/user/token", token, body, project=project)
            assert refused(answer, 401, "E011005"), (what, answer.text)
            assert token not in answer.text, what
        assert connect(here, token).status_code == 401, what
    assert dump(here.settings) == before
    assert fetch(here, idp.access("alice")).status_code == 200  # control


def test_a_user_reaches_nobody_elses_token_whatever_the_call_names(here: Installation, idp: Issuer) -> None:
    """A user's own token is that user's in every call; a tenant is one that it names."""
    for owner in ({"user_id": "victim"}, {"user_id": "victim", "tenantId": "acme"}):
        here.connected(**owner)
    here.connected("mallory")
    mallorys = (idp.access("mallory"), idp.access("mallory", tenant="globex"), idp.access("mallory", tenant=["globex"]))
    for token in mallorys:
        for body in ({"userId": "victim"}, {"userId": "victim", "tenantId": "acme"}, {"userId": "VICTIM"}):
            for path, more in (("app/user/token", {"scopes": SCOPES}), ("app/user/token/latest", {})):
                assert refused(call(here, path, token, {"appId": APP_ID, **body, **more}), 403, "E011006"), body
        tenants = {"appId": APP_ID, "tenantId": "acme"}
        assert call(here, "app/tenant/token/latest", token, tenants).status_code == 403
        refresh = {"appId": APP_ID, "userId": "mallory", "options": {"withRefreshToken": True}}
        assert call(here, "app/user/token/latest", token, refresh).status_code == 403
    assert fetch(here, mallorys[0], "mallory").status_code == 200  # control


def test_a_session_that_a_browser_holds_fetches_no_token(here: Installation, idp: Issuer) -> None:
    here.connected("alice")
    assert refused(fetch(here, idp.session("alice")), 403, "E011006")
    assert fetch(here, idp.access("alice")).status_code == 200  # control: with the scope for it
