"""That nothing of the SDK which evergrant answers is left untried."""

import inspect
import re
from pathlib import Path

import pytest
from descope.management.audit import Audit
from descope.management.management_key import ManagementKey
from descope.management.outbound_application import OutboundApplication, OutboundApplicationByToken

NOT_ANSWERED = {"create_audit_webhook"}
"""A connector of the vendor's console."""

TRIED: dict[type, tuple[str, ...]] = {
    OutboundApplication: ("test_apps.py", "test_tokens.py"),
    OutboundApplicationByToken: ("test_by_token.py",),
    ManagementKey: ("test_keys_and_audit.py",),
    Audit: ("test_keys_and_audit.py",),
}


@pytest.mark.parametrize("part", TRIED, ids=lambda part: part.__name__)
def test_every_method_of_the_sdk_is_tried(part: type) -> None:
    source = "".join((Path(__file__).parent / name).read_text() for name in TRIED[part])
    methods = {name for name, _ in inspect.getmembers(part, inspect.isfunction) if not name.startswith("_")}
    assert len(methods) > 2
    assert {name for name in methods - NOT_ANSWERED if not re.search(rf"\.{name}\b", source)} == set()
