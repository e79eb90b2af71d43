"""Reads what Python packages say about providers. The source is parsed, and never run."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath

from scripts.audit.claims import Claim, add, field_of

Facts = dict[str, tuple[str, ...]]
Known = Mapping[str, ast.expr]
_GENERIC = frozenset({"__init__", "views", "provider", "base", "oauth", "oauth2", "_core", "utils"})


def claims_in(source: str, path: str, text: str) -> Iterator[Claim]:
    """Yield what a module says: one claim for each class or function that knows a provider, or for the module."""
    tree = ast.parse(text)
    module = _assigned(tree.body)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = False
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        body = list(_inherited(node, classes)) if isinstance(node, ast.ClassDef) else [node]
        known: dict[str, ast.expr] = dict(module)
        for part in reversed(body):
            known |= _assigned(ast.walk(part))
        facts = _facts(body, known)
        own = _facts([node], known)
        if not any(name.endswith("_endpoint") for name in own):
            facts = {**_facts([tree], module, nested=False), **facts} if body[-1] is tree.body[-1] else {}
        claim = Claim(source, _name(node, known, path), facts)
        if claim.is_whole:
            found = True
            yield claim
    if not found:
        claim = Claim(source, _stem(path), _facts([tree], module))
        if claim.is_whole:
            yield claim


def pkce_in(text: str) -> str:
    """Return `supported` or `absent` where a module of a provider says it in its settings; else an empty text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and any("PKCE" in ast.unparse(base) for base in node.bases):
            return "supported"
        for name, value in _pairs(node):
            if name.lower() in ("pkce_enabled_default", "default_use_pkce") and isinstance(value, ast.Constant):
                return "supported" if value.value else "absent"
    return ""


def _inherited(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield a class and what it inherits from in the same module, the nearest first."""
    yield node
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(name, ast.Name) and name.id in classes and name.id != node.name:
            yield from _inherited(classes[name.id], classes)


def _name(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, known: Known, path: str) -> str:
    if isinstance(node, ast.ClassDef):
        own = _assigned(node.body)
        for key in ("name", "NAME", "provider", "provider_id"):
            value = _text(own[key], known) if key in own else ""
            if value and "{" not in value:
                return value
        if PurePosixPath(path).stem in ("__init__", "oauth2"):  # many providers in one module
            return node.name.removesuffix("Client")
    return _stem(path)


def _stem(path: str) -> str:
    pure = PurePosixPath(path)
    return pure.parent.name if pure.stem in _GENERIC else pure.stem


def _assigned(nodes: Iterator[ast.AST] | list[ast.stmt]) -> dict[str, ast.expr]:
    return {name: value for node in nodes for name, value in _pairs(node)}


def _pairs(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a node gives a name to: assignments, entries of dicts, keyword arguments, defaults, properties."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from ((name, node.value) for name in _target(target))
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from ((name, node.value) for name in _target(node.target))
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value
    elif isinstance(node, ast.Call):
        yield from ((word.arg, word.value) for word in node.keywords if word.arg)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from _returned(node)


def _target(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Attribute):
        yield target.attr
    elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        yield str(target.slice.value)


def _returned(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a property returns; `@default("token_url")` names it where the function does not."""
    called = [each for each in node.decorator_list if isinstance(each, ast.Call) and each.args]
    names = [node.name, *(str(each.args[0].value) for each in called if isinstance(each.args[0], ast.Constant))]
    for inner in ast.walk(node):
        if isinstance(inner, ast.Return) and inner.value is not None:
            yield from ((name, inner.value) for name in names)


def _facts(roots: Sequence[ast.AST], known: Known, nested: bool = True) -> Facts:
    facts: Facts = {}
    for root in roots:
        found: Facts = {}
        for node in ast.walk(root) if nested else ast.iter_child_nodes(root):
            local = _assigned(ast.walk(node)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else {}
            for name, value in _pairs(node):
                _fact(found, name, value, {**known, **local})
        facts = {**found, **facts}
    return facts


def _fact(facts: Facts, name: str, value: ast.expr, known: Known) -> None:
    if name.lower() in ("basic_auth", "use_basic_auth") and isinstance(value, ast.Constant) and value.value is True:
        add(facts, "auth_method", "client_secret_basic")
    role = field_of(name)
    if role:
        for part in chain([value], value.values if isinstance(value, ast.BoolOp) else []):
            text = _text(part, known)
            if text:
                add(facts, role, text)


def _text(node: ast.expr, known: Known, depth: int = 0) -> str:
    """Return the text that an expression makes, with `{name}` for what is known only at run time."""
    if depth > 8:
        return "{x}"
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, known, depth + 1) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, known, depth + 1) or "{x}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, known, depth + 1) + _text(node.right, known, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _text(node.left, known, depth + 1).replace("%s", "{x}")
    if isinstance(node, ast.Call):
        return _called(node, known, depth)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    if name in known and known[name] is not node:
        return _text(known[name], known, depth + 1) or "{x}"
    return "{x}"


def _called(node: ast.Call, known: Known, depth: int) -> str:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called == "format" and isinstance(node.func, ast.Attribute):
        filled = {word.arg: _text(word.value, known, depth + 1) for word in node.keywords if word.arg}
        text = _text(node.func.value, known, depth + 1)
        for name, value in filled.items():
            text = text.replace("{" + name + "}", value)
        return text.replace("{}", "{x}")
    if called == "get" and len(node.args) == 2:  # a setting with a default
        return _text(node.args[1], known, depth + 1)
    if called in ("urljoin", "_url", "get_url", "build_url") and node.args:
        return "".join(_text(part, known, depth + 1) for part in node.args)
    if called.endswith("url_join") and node.args:
        return "/".join(_text(part, known, depth + 1).strip("/") for part in node.args)
    return "{x}"
