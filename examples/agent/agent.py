"""A small agent: a model asks for tools, and its two tools call an app's API through evergrant.

The model is scripted, so that this runs without a network. Put a real one in its place: the loop stays as it is. All
that the agent holds is a session's key, which no provider takes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from evergrant_agents import ApprovalRequired, Client, ConnectionRequired, EvergrantError

Message = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """What a model asks for."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


class ScriptedModel:
    """Plays a model: asks for the tools of its script, and then says what came of it."""

    def __init__(self, script: Iterable[ToolCall]) -> None:
        self._script = iter(script)

    def reply(self, messages: list[Message]) -> ToolCall | str:
        """Return the next tool call, or the answer for the person."""
        results = [message["content"] for message in messages if message["role"] == "tool"]
        if any("error" in result for result in results):
            return f"That did not work: {results[-1]['error']}"
        call = next(self._script, None)
        if call is not None:
            return call
        names = [contact["name"] for contact in results[-1]["contacts"]]
        return f"Done. You have {len(names)} contacts now, the last one is {names[-1]}."


@dataclass(frozen=True)
class Person:
    """What the agent can ask of the person whom it works for. It never sees the answer's secrets."""

    connect: Callable[[ConnectionRequired], None]
    """Returns when the person has connected."""
    approve: Callable[[ApprovalRequired], None]
    """Returns when the person has decided."""


class Agent:
    """Runs a model's tool calls for one person."""

    def __init__(self, evergrant: Client, person: Person, *, scopes: tuple[str, ...] = ()) -> None:
        self._evergrant, self._person, self._scopes = evergrant, person, scopes

    def run(self, model: ScriptedModel, task: str) -> str:
        """Work on a task until the model has an answer."""
        messages: list[Message] = [{"role": "user", "content": task}]
        while True:
            step = model.reply(messages)
            if isinstance(step, str):
                return step
            print(f"model     {step.tool} {step.arguments}")
            messages.append({"role": "assistant", "content": step})
            messages.append({"role": "tool", "content": self._call(step)})

    def _call(self, step: ToolCall) -> Any:
        method = {"api_read": "GET", "api_write": "POST"}[step.tool]
        approval_id = ""
        while True:
            try:
                answer = self._evergrant.request(
                    step.arguments["app"],
                    method,
                    step.arguments["path"],
                    json=step.arguments.get("json"),
                    scopes=self._scopes,
                    approval_id=approval_id,
                )
            except ConnectionRequired as missing:
                self._person.connect(missing)
            except ApprovalRequired as wanted:
                self._person.approve(wanted)
                approval_id = wanted.approval_id
            except EvergrantError as error:
                # Refused, too many, not reached, in doubt: the message says which, and a model can read it.
                return {"error": str(error)}
            else:
                # A provider's error is an answer for the model as well.
                return answer.json() if answer.is_success else {"error": f"{answer.status_code}: {answer.text[:500]}"}
