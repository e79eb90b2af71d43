"""Static files: a few, read and compressed once, and kept by browsers for as long as their address lives."""

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from evergrant.errors import NotFound

STATIC = FilePath(__file__).parent / "static"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_A_WHILE = "public, max-age=300"
COMPRESSED = frozenset({"text/css", "text/javascript", "image/svg+xml"})

_UNREAD = re.compile(rb"/\*.*?\*/|\s*\n\s*|(?<=[:;,{])\s+|\s+(?=[{}])|;\s*(?=\})", re.DOTALL)
"""What of a stylesheet is for its readers only: comments, lines and spaces."""

router = APIRouter(include_in_schema=False)

Name = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    version: str


@cache
def _files() -> dict[str, _File]:
    files = {}
    for path in sorted(STATIC.rglob("*")):
        if not path.is_file() or path.name.startswith((".", "LICENSE")):
            continue
        content = path.read_bytes()
        kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or "text/plain"
        if kind == "text/css":
            content = _UNREAD.sub(b"", _UNREAD.sub(b"", content))  # twice: what stood around a comment
        version = hashlib.sha256(content).hexdigest()[:12]
        files[path.relative_to(STATIC).as_posix()] = _File(content, kind, version)
    return files


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_files()[name].content, mtime=0)


def has_static(name: str) -> bool:
    """Tell whether there is a static file of this name."""
    return name in _files()


def static_url(name: str) -> str:
    """Return the address of a static file, which changes with its content."""
    return f"/static/{name}?v={_files()[name].version}"


@router.get("/static/{name:path}")
async def static(name: Name, request: Request) -> Response:
    """Answer with a static file. Pages are never compressed: a secret that is shown once must not meet an oracle."""
    return static_answer(name, request)


def static_answer(name: str, request: Request) -> Response:
    """Answer with a static file, whatever its address here. Pages of any origin may use it.

    Raises:
        NotFound: there is none.
    """
    file = _files().get(name)
    if file is None:
        raise NotFound
    is_this = request.query_params.get("v") == file.version
    headers = {
        "Cache-Control": FOR_EVER if is_this else FOR_A_WHILE,
        "Vary": "Accept-Encoding",
        "ETag": f'"{file.version}"',
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    kind = f"{file.media_type}; charset=utf-8" if file.media_type.startswith("text/") else file.media_type
    if file.media_type in COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_compressed(name), headers={**headers, "Content-Encoding": "gzip"}, media_type=kind)
    return Response(file.content, headers=headers, media_type=kind)
