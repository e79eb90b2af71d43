"""What is the least that an answer of this shape costs? A plain FastAPI app that returns a constant."""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks.seed import ACCESS_TOKEN_LENGTH

ANSWER = {
    "token": {
        "id": "0" * 32,
        "appId": "benchmark",
        "userId": "user-500000",
        "tokenSub": "subject-500000",
        "accessToken": "t" * ACCESS_TOKEN_LENGTH,
        "accessTokenType": "Bearer",
        "accessTokenExpiry": "1800000000",
        "hasRefreshToken": True,
        "lastRefreshTime": "",
        "lastRefreshError": "",
        "scopes": ["contacts.readonly", "openid"],
    }
}

app = FastAPI()


@app.post("/plain", response_model=None)  # the same to FastAPI as no return annotation, which the type checker wants
async def plain() -> dict[str, Any]:
    return ANSWER


@app.post("/typed")
async def typed() -> dict[str, Any]:
    """The quickest that FastAPI has: with a return type, pydantic writes the JSON."""
    return ANSWER


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    # As `evergrant serve` runs uvicorn, and as quiet as uvicorn can be.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
