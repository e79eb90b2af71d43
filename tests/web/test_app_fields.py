"""A field of an app goes by one name from the request to the answer, so that none can be forgotten on the way."""

from dataclasses import fields

from evergrant.broker.apps.definition import AppDefinition
from evergrant.web.api.app_answer_wire import AppBody
from evergrant.web.api.app_wire import AppFields

DEFINED = {field.name for field in fields(AppDefinition)}


def on_the_wire(name: str) -> str:
    return "scopes" if name == "scope_descriptions" else name


def test_every_field_of_a_definition_can_be_sent_and_nothing_else() -> None:
    assert {*AppFields.model_fields, "id"} == {on_the_wire(name) for name in DEFINED}


def test_every_field_of_a_definition_is_answered_but_the_secrets() -> None:
    secrets = {"client_secret", "signing_key"}
    of_evergrant = {
        "has_client_secret",
        "has_signing_key",
        "registration_expires_at",
        "callback_url",
        "health",
        "warnings",
        "created_time",
        "updated_time",
    }
    assert set(AppBody.model_fields) - of_evergrant == {on_the_wire(name) for name in DEFINED} - secrets
