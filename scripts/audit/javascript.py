"""Reads what JavaScript packages say about providers, from the tokens of their source. Nothing is run."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from scripts.audit.claims import Claim, add, field_of

_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/"""
    r"""|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)"""
    r"""|(?P<name>[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$#][\w$]*)*)"""
    r"""|(?P<mark>\|\||\?\?|=>|===?|!==?|[^\s])""",
    re.DOTALL,
)
_SHORT = {"auth": "authorization_endpoint", "authorization": "authorization_endpoint"}
_SHORT |= {"token": "token_endpoint", "grant": "token_endpoint", "authorizationEndpoint": "authorization_endpoint"}
_BLOCK = re.compile(r"(\w+)_CONFIGURATION = \{(.*?)\}", re.DOTALL)
_PKCE = re.compile(r"code_?verifier|checks: \[[^\]]*pkce|default: 'pkce'", re.IGNORECASE)
Facts = dict[str, tuple[str, ...]]


def claims_in(source: str, path: str, text: str) -> Iterator[Claim]:
    """Yield what a file says about the provider that it is named after."""
    tokens = _tokens(text)
    known: dict[str, int] = {}
    for place, name in _named(tokens):
        known.setdefault(name, place)
    facts: Facts = {}
    for place, name in _named(tokens):
        role, start = field_of(name) or _SHORT.get(name, ""), place
        if name == "name":  # n8n: { name: "authUrl", ..., default: "https://..." }
            role, start = _described(tokens, place)
        for value in _values(tokens, start, known) if role else ():
            add(facts, role, value)
        if name == "authentication" and tokens[place][0] in "\"'":
            add(facts, "auth_method", tokens[place][1:-1])
        if name == "useParamsAuth" and tokens[place] == "true":
            add(facts, "auth_method", "client_secret_post")
    if _PKCE.search(text):
        facts["pkce"] = ("supported",)
    name = re.sub(r"(OAuth2)?(Api)?\.credentials$", "", PurePosixPath(path).stem)
    claim = Claim(source, name, facts)
    if claim.is_whole:
        yield claim


def blocks_in(source: str, path: str, text: str) -> Iterator[Claim]:  # noqa: ARG001 - all readers are called alike
    """Yield what a file says that has hosts and paths of many providers apart (`GITHUB_CONFIGURATION = {...}`)."""
    for name, block in _BLOCK.findall(text):
        said = dict(re.findall(r"(\w+): '([^']*)'", block))
        facts: Facts = {}
        host = said.get("tokenHost", "")
        add(facts, "token_endpoint", host + said.get("tokenPath", "/oauth/token"))
        add(facts, "authorization_endpoint", said.get("authorizeHost", host) + said.get("authorizePath", ""))
        if "revokePath" in said:
            add(facts, "revocation_endpoint", host + said["revokePath"])
        claim = Claim(source, name.lower(), facts)
        if claim.is_whole:
            yield claim


def apis_in(source: str, path: str, text: str) -> Iterator[Claim]:
    """Yield where the API of a file's provider is that is tried with a credential, and where the credential goes."""
    facts: Facts = {}
    for found in re.findall(r"baseURL: (?:'([^']*)'|\"([^\"]*)\"|`([^`]*)`)", text):
        add(facts, "api_call", "".join(found))
        facts["api_base"] = facts.get("api_call", ())
    way = text.partition("authenticate = {")[2].partition("test = {")[0]
    if re.search(r"\bauth: \{", way):
        add(facts, "placement", "basic")
    for place, name in re.findall(r"\b(headers|qs): \{\s*'?([\w-]+)'?:", way):
        add(facts, "placement", f"{'query' if place == 'qs' else 'header'} {name.lower()}")
    name = re.sub(r"(Token|AccessToken)?Api\.credentials$", "", PurePosixPath(path).stem)
    claim = Claim(source, name, {key: value for key, value in facts.items() if value})
    if claim.is_of_an_api:
        yield claim


def _tokens(text: str) -> list[str]:
    return [found.group() for found in _TOKEN.finditer(text) if found.lastgroup] + [";"] * 8


def _named(tokens: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the names that are given a value, with the place of the value."""
    for place, token in enumerate(tokens[:-8]):
        if tokens[place + 1] in (":", "="):
            bare = token[1:-1] if token[0] in "\"'" else token.rpartition(".")[2]
            if re.fullmatch(r"[\w$]+", bare):
                yield place + 2, bare


def _described(tokens: list[str], place: int) -> tuple[str, int]:
    role = field_of(tokens[place].strip("\"'`"))
    role = "auth_method" if tokens[place].strip("\"'`") == "authentication" else role
    depth, first = 0, 0
    for ahead in range(place, len(tokens) - 8):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(tokens[ahead], 0)
        if depth < 0:
            break
        if tokens[ahead + 1] == ":" and (tokens[ahead] == "default" and depth == 0):
            return role, ahead + 2
        if tokens[ahead] == "value" and tokens[ahead + 1] == ":":
            first = first or ahead + 2
    return (role, first) if first else ("", place)


def _values(tokens: list[str], place: int, known: dict[str, int]) -> Iterator[str]:
    """Yield what an expression may be: the sides of `a || b`, or the `url` of an object."""
    if tokens[place] == "{":
        depth = 0
        for ahead in range(place, len(tokens) - 8):
            depth += {"{": 1, "}": -1}.get(tokens[ahead], 0)
            if depth == 0:
                return
            if depth == 1 and tokens[ahead] == "url" and tokens[ahead + 1] == ":":
                yield from _choices(tokens, ahead + 2, known, 0)[0]
                return
    else:
        yield from _choices(tokens, place, known, 0)[0]


def _choices(tokens: list[str], place: int, known: dict[str, int], depth: int) -> tuple[list[str], int]:
    """Return all that an expression may be (`a || b`, `a ? b : c`), and the place after it."""
    found: list[str] = []
    inner = 0
    while True:
        text, place = _value(tokens, place, known, depth)
        follows = tokens[place]
        inner += follows == "?"
        if follows == ":" and inner:
            inner -= 1
        elif follows not in ("||", "??", "?", "===", "=="):
            return [*found, text], place
        if follows in ("||", "??", ":"):
            found.append(text)
        place += 1


def _value(tokens: list[str], place: int, known: dict[str, int], depth: int) -> tuple[str, int]:
    """Return the text that operands joined by `+` make, and the place after it."""
    text, place = _operand(tokens, place, known, depth)
    while tokens[place] == "+":
        more, place = _operand(tokens, place + 1, known, depth)
        text += more
    return text, place


def _operand(tokens: list[str], place: int, known: dict[str, int], depth: int) -> tuple[str, int]:
    token = tokens[place]
    if token[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", token[1:-1]), place + 1
    if token[0] == "`":
        return re.sub(r"\$\{([^}]*)\}", lambda found: _resolved(tokens, found[1], known, depth), token[1:-1]), place + 1
    if token == "(":
        texts, after = _choices(tokens, place + 1, known, depth)
        return texts[-1], after + (tokens[after] == ")")
    if tokens[place + 1] == "(" and token.startswith("join"):
        text, place = _value(tokens, place + 2, known, depth)
        while tokens[place] == ",":
            more, place = _value(tokens, place + 1, known, depth)
            text = f"{text.rstrip('/')}/{more.lstrip('/')}"
        return text, place + 1
    return _resolved(tokens, token, known, depth), place + 1


def _resolved(tokens: list[str], name: str, known: dict[str, int], depth: int) -> str:
    """Return what a name in the file stands for, and `{x}` where that is known only at run time."""
    last = re.split(r"\??\.", name.strip())[-1]
    if depth > 6 or last not in known:
        return "{x}"
    texts, _ = _choices(tokens, known[last], known, depth + 1)
    return next((text for text in reversed(texts) if text and text != "{x}"), "{x}")
