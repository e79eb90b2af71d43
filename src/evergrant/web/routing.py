"""The router of every call of the JSON API.

Its routes are complete as they are: including a router in an application makes each of its routes a second time, at the
first request, and puts a layer around each call.
"""

from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute

from evergrant.web.deps import refuse_odd_text


def operation_id(route: APIRoute) -> str:
    """Name an operation after its handler, `create_app` as createApp: code generators make methods of these names."""
    head, *rest = route.name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class ApiRouter(APIRouter):
    """Routes whose texts are checked and whose operations have names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dependencies=[Depends(refuse_odd_text)], generate_unique_id_function=operation_id, **options)
