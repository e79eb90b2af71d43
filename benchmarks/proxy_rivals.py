"""What is the least that a reverse proxy costs in Python? Two that do nothing but pass on: aiohttp alone, and httpx2.

Neither asks who calls, looks at a path, knows of a token, cleans a header that it need not, or writes anything down.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx2
import uvicorn
import uvloop
from aiohttp import web
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "authorization"}


def aiohttp_proxy(upstream: str, port: int) -> None:
    """aiohttp's server and aiohttp's client, as its documentation puts them together."""
    session: web.AppKey[aiohttp.ClientSession] = web.AppKey("session")

    async def pass_on(request: web.Request) -> web.StreamResponse:
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
        async with request.app[session].request(
            request.method, upstream + request.raw_path, headers=headers, allow_redirects=False
        ) as theirs:
            kept = [(k, v) for k, v in theirs.headers.items() if k.lower() not in HOP_BY_HOP]
            answer = web.StreamResponse(status=theirs.status)
            answer.headers.extend(kept)
            answer.content_length = theirs.content_length
            await answer.prepare(request)
            async for data in theirs.content.iter_any():
                await answer.write(data)
            await answer.write_eof()
            return answer

    async def client(app: web.Application) -> AsyncIterator[None]:
        # No limit, no decompression: like evergrant's.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as opened:
            app[session] = opened
            yield

    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_route("*", "/{path:.*}", pass_on)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, handle_signals=True)


def httpx2_proxy(upstream: str, port: int) -> None:
    """httpx2's client behind uvicorn and Starlette, which stand before evergrant too."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(trust_env=False, timeout=None, limits=limits) as client:
            app.state.client = client
            yield

    async def pass_on(request: Request) -> Response:
        client: httpx2.AsyncClient = request.app.state.client
        headers = [(k, v) for k, v in request.headers.items() if k not in HOP_BY_HOP]
        asked = client.build_request(request.method, upstream + request.url.path, headers=headers)
        theirs = await client.send(asked, stream=True)
        answer = StreamingResponse(
            theirs.aiter_raw(), status_code=theirs.status_code, background=BackgroundTask(theirs.aclose)
        )
        for name, value in theirs.headers.items():
            if name not in HOP_BY_HOP or name == "content-length":
                answer.headers.append(name, value)
        return answer

    app = Starlette(lifespan=lifespan, routes=[Route("/{path:path}", pass_on, methods=["GET"])])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["aiohttp", "httpx2"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    (aiohttp_proxy if options.kind == "aiohttp" else httpx2_proxy)(options.upstream, options.port)
