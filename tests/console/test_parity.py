"""Whatever a page of the console can do, a call can: both use the same functions of the broker."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from fastapi.routing import APIRoute

from evergrant.web import api
from evergrant.web.console.router import router

GETTING_IN = {"evergrant.web.console.sign_in", "evergrant.web.console.oidc", "evergrant.web.console.router"}
"""What has to do with cookies, which no call has."""
OF_SESSIONS = {
    "end_other_sessions": "the same for all browsers but one",
    "count_to_do": "the navigation's red numbers, which `take_a_glance` tells in full",
    "end_session": "ends a browser's session; a call has none",
    "find_session": "recognises a browser's session",
    "latest_records": "the newest of `audit/records` and the names of their keys, in one statement",
    "list_apps_with_logos": "`list_apps` with the versions of their logos, in one statement",
    "list_projects": "which project a browser is shown; a call names its own",
    "list_sessions": "lists browsers' sessions",
    "read_health": "about the whole installation, of which no key knows: `evergrant doctor` and `/metrics` tell it",
}
"""Functions of the broker that no call uses, and why."""


SHORTCUTS = {
    "add_practice_app": "is app/create with the registration that evergrant has at its own practice provider",
}
"""Functions of the broker that spare a click: each is a call with its fields filled in."""


def use_cases_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield name and home of each function of the broker that a module awaits."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evergrant.broker"):
            for one in node.names:
                found = getattr(importlib.import_module(node.module or ""), one.name)
                if inspect.iscoroutinefunction(found):
                    yield found.__name__, found.__module__
                elif inspect.ismodule(found):  # `from evergrant.broker.x import y`, and then `y.do(...)`
                    yield from _called(module, one.asname or one.name, found)


def _called(module: ModuleType, alias: str, home: ModuleType) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == alias:
            found = getattr(home, node.attr, None)
            if inspect.iscoroutinefunction(found):
                yield found.__name__, found.__module__


def modules_behind(start: ModuleType, within: str) -> Iterator[ModuleType]:
    """Yield a module, and those of the same package that it imports."""
    seen, waiting = set(), [start]
    while waiting:
        module = waiting.pop()
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        yield module
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(within):
                home = importlib.import_module(node.module or "")
                waiting.append(home)
                waiting += [found for one in node.names if inspect.ismodule(found := getattr(home, one.name))]


def test_whatever_a_page_can_do_a_call_can() -> None:
    calls = {
        use_case
        for info in pkgutil.iter_modules(api.__path__, f"{api.__name__}.")
        for use_case in use_cases_of(importlib.import_module(info.name))
    }
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert routes
    only_pages = {
        (route.path, name)
        for route in routes
        if route.endpoint.__module__ not in GETTING_IN
        for module in modules_behind(inspect.getmodule(route.endpoint) or api, "evergrant.web.console")
        if module.__name__ not in GETTING_IN
        for name, home in use_cases_of(module)
        if (name, home) not in calls and name not in {*OF_SESSIONS, *SHORTCUTS}
    }
    assert only_pages == set()
