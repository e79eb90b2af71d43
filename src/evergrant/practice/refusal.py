"""What the token endpoint says no with."""

from starlette.responses import JSONResponse, Response


class Refusal(Exception):
    """An error answer (RFC 6749 section 5.2)."""

    def __init__(self, error: str, description: str, *, status: int = 400, challenge: bool = False) -> None:
        """`challenge` asks for HTTP Basic."""
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.headers = {"WWW-Authenticate": 'Basic realm="practice"'} if challenge else {}

    def answer(self) -> Response:
        """Return it as it is sent."""
        body = {"error": self.error, "error_description": self.description}
        return JSONResponse(body, self.status, {"Cache-Control": "no-store", **self.headers})
