"""What stands in an address is bounded and storable, for every route there is and will be."""

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute

from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.console.route import ConsoleRoute

STATIC_FILES = "/static/{name:path}"


def routes(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif included := getattr(route, "original_router", None):
            yield from routes(included)


def test_every_text_in_an_address_has_a_length_and_takes_no_nul() -> None:
    seen, bare = 0, []
    for route in routes(create_app(Settings())):
        dependant = route.dependant
        for parameter in (*dependant.path_params, *dependant.query_params, *dependant.header_params):
            if parameter.field_info.annotation is not str:
                continue
            seen += 1
            kinds = {type(one).__name__ for one in parameter.field_info.metadata}
            pattern = any(getattr(one, "pattern", None) for one in parameter.field_info.metadata)
            is_guarded = isinstance(route, ConsoleRoute)  # which refuses odd text before anything is read
            if "MaxLen" not in kinds or not (pattern or is_guarded or "AfterValidator" in kinds):
                bare.append(f"{route.path}: {parameter.name}")
    assert bare == [], "give it a type of web/api/wire.py, or a pattern and max_length"
    assert seen > 15


def test_every_router_refuses_odd_text_by_the_name_of_its_parameter() -> None:
    app = create_app(Settings())
    unguarded = []
    for route in app.routes:
        included = getattr(route, "original_router", None)
        if included is None:
            continue
        guards = [*route.include_context.dependencies, *included.dependencies]  # type: ignore[attr-defined]
        takes = [one.path for one in routes(included) if one.dependant.path_params or one.dependant.query_params]
        takes = [path for path in takes if path != STATIC_FILES]  # a name in plain letters, or nothing
        if takes and "refuse_odd_text" not in {guard.dependency.__name__ for guard in guards}:
            unguarded += takes
    assert unguarded == []
