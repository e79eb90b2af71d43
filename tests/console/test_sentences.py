"""The audit log in words."""

import ast
import re
from pathlib import Path

import pytest
from sqlalchemy import inspect

import evergrant
from evergrant.db import AuditEvent
from evergrant.web.console.sentences import TELLINGS, sentence_of

ROOT = Path(evergrant.__file__).parent
RECORDING = {"record", "record_connect", "note_over", "record_report"}
ACTION = re.compile(
    r"(accounts|app|approval|audit|branding|calls?|connect|connections|console|grant|issuer|key|keyring|policy|portal"
    r"|project|session|token|webhook)\.[a-z_]+"
)


def _event(action: str, **values: object) -> AuditEvent:
    columns = dict.fromkeys((column.key for column in inspect(AuditEvent).columns), "")
    return AuditEvent(**{**columns, "action": action, "data": {}, **values})


def _actions_in_the_code() -> set[str]:
    """Every text in a file that records something which begins as our own actions do: some of them go by variables."""
    found: set[str] = set()
    for path in (ROOT / "broker").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        if not called & RECORDING and "AuditEvent" not in path.read_text(encoding="utf-8"):
            continue
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        found |= {text for text in texts if ACTION.fullmatch(text)}
    return found


def test_every_action_that_the_code_records_has_a_sentence() -> None:
    actions = _actions_in_the_code()
    assert "grant.connected" in actions
    assert actions - TELLINGS.keys() == set()


@pytest.mark.parametrize("action", [*TELLINGS, "deal.closed"])
def test_a_sentence_needs_nothing_that_an_old_record_may_lack(action: str) -> None:
    assert "{" not in sentence_of(_event(action))


def test_a_sentence_escapes_what_others_have_written_and_uses_the_names_that_it_is_given() -> None:
    event = _event("grant.connect_failed", user_id="<b>ada</b>", app_id="a1", data={"err": "<script>"})
    said = sentence_of(event, {"app:a1": "Mail & more"})
    expected = "<strong>&lt;b&gt;ada&lt;/b&gt;</strong> did not connect <strong>Mail &amp; more</strong>: "
    assert said == expected + "<strong>&lt;script&gt;</strong>"
    changed = _event("app.updated", actor="key:k1", app_id="a1", data={"fields": ["name", "scopes"]})
    assert "The key <strong>agents</strong> changed <strong>name and scopes</strong>" in sentence_of(
        changed, {"key:k1": "agents"}
    )


def test_a_sentence_calls_an_agent_by_its_name_and_not_by_its_session() -> None:
    asked = _event("approval.requested", actor="session:5e55ion1", user_id="ada", app_id="a1", data={"agentId": "mail"})
    said = "The agent <strong>mail</strong> asked <strong>ada</strong> to approve a request to <strong>a1</strong>"
    assert sentence_of(asked) == said
    assert sentence_of(_event("grant.connected", actor="session:5e55ion1")).count("5e55ion1") == 0
