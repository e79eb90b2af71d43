"""An entry's words for a dead refresh token: what else the same provider says is not taken for them."""

import json
from typing import Any

import pytest

from evergrant.broker.apps.quirks import quirks_from
from evergrant.catalog.loader import load_catalogue
from evergrant.oauth2.error_answer import read_error
from evergrant.oauth2.error_words import REFRESH_TOKEN, Meaning, meaning_of
from evergrant.oauth2.transport import HttpAnswer


@pytest.mark.parametrize(
    ("entry_id", "status", "body"),
    [
        ("withings", 200, {"status": 503, "body": {}, "error": "Invalid Params: invalid client_secret"}),
        ("withings", 200, {"status": 601, "body": {}, "error": "Too many request"}),
        (
            "strava",
            400,
            {
                "message": "Bad Request",
                "errors": [{"resource": "Application", "field": "client_secret", "code": "invalid"}],
            },
        ),
        ("hubspot", 400, {"status": "BAD_CLIENT_ID", "error": "invalid_request", "message": "client_id mismatch"}),
        ("zoom", 400, {"reason": "Internal error", "error": "invalid_request"}),
        ("zoho", 400, {"error": "Access Denied", "error_description": "You have made too many requests."}),
        ("zoho", 200, {"error": "invalid_client"}),
        ("reddit", 401, {"message": "Unauthorized", "error": 401}),
        ("squareup", 401, {"message": "Not Authorized", "type": "service.not_authorized"}),
        ("exact-online", 401, {"error": "unauthorized_client", "error_description": "Client is not known."}),
        ("atlassian", 403, {"error": "unauthorized_client", "error_description": "The client is not known."}),
        ("shopify", 400, {"error": "invalid_request", "error_description": "Could not find Shopify API application"}),
        ("twitter-v2", 400, {"error": "invalid_request", "error_description": "Missing required parameter."}),
        ("microsoft", 401, {"error": "invalid_client", "error_description": "AADSTS7000222: The secret has expired."}),
        ("google", 401, {"error": "invalid_client", "error_description": "The OAuth client was not found."}),
        ("basecamp", 401, "Unknown Basecamp ID."),
        ("orcid", 400, {"error": "invalid_request", "error_description": "This token does not belong to the client"}),
        ("orcid", 401, {"error": "invalid_client", "error_description": "Client not found: APP-1"}),
        ("klaviyo-oauth", 400, {"error": "invalid_client"}),
        ("apple", 400, {"error": "invalid_request"}),
        ("servicenow", 401, {"error": "server_error", "error_description": "access_denied"}),
        (
            "pinterest",
            401,
            {"code": 283, "data": "Invalid Application ID", "message": "The authorization grant is invalid"},
        ),
        ("highlevel", 400, {"error": "Bad Request", "message": "Location is not active", "statusCode": 400}),
    ],
)
def test_what_a_provider_says_of_the_app_or_of_a_bad_minute_ends_no_connection(
    entry_id: str, status: int, body: dict[str, Any] | str
) -> None:
    entry = load_catalogue()[entry_id]
    answer = HttpAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())
    said = read_error(answer, entry.token_response)
    assert said is not None
    assert meaning_of(said, REFRESH_TOKEN, quirks_from(entry, {})) is not Meaning.DEAD
