"""Takes the value of a variable out of a whole address that somebody pasted for it."""

import re
from urllib.parse import urlsplit

from evergrant import placeholders
from evergrant.catalog.template import Template
from evergrant.pasted import is_one_word


def value_from_address(template: Template, name: str, pasted: str) -> str:
    """Return `acme` for `https://acme.example.com/home`, where the template has `https://{name}.example.com/...`.

    What is returned is a value that the variable allows; where there is none in `pasted`, it is `pasted` itself.
    """
    variable = template.variables.get(name)
    if variable is None or not variable.problem_with(pasted):
        return pasted
    places = _places(pasted)
    for url in _urls(template):
        for place in places:
            found = _pattern(url, name).fullmatch(place)
            if found and not variable.problem_with(found["value"]):
                return found["value"]
    return pasted


def _urls(template: Template) -> list[str]:
    urls = (template.authorization_endpoint, template.token_endpoint, template.refresh_endpoint)
    more = (template.userinfo_endpoint, template.revocation_endpoint, template.issuer, template.api.base_url)
    return [url for url in (*urls, *more, *(step.url for step in template.login)) if url]


def _places(pasted: str) -> list[str]:
    """Return host and path of an address, with its scheme and without, then without the path too."""
    try:
        parts = urlsplit(pasted if "://" in pasted else f"https://{pasted}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return []
    # Browsers read "\" as "/", and what stands before an "@" is no host.
    if not host or not is_one_word(pasted) or "\\" in pasted or "@" in parts.netloc:
        return []
    if parts.scheme not in ("http", "https"):
        return []
    origin = host if port in (None, 443) else f"{host}:{port}"
    whole = origin + parts.path.rstrip("/")
    return [whole, origin, f"https://{whole}", f"https://{origin}"]


def _pattern(url: str, name: str) -> re.Pattern[str]:
    """Make what matches the host of a URL, or its origin where that begins with a variable."""
    host = url.rpartition("://")[2].partition("/")[0]
    pattern, end = "", 0
    for variable in placeholders.NAME.finditer(host):
        pattern += re.escape(host[end : variable.start()])
        again = "(?P<value>" in pattern
        pattern += "(?P<value>.+)" if variable[1] == name and not again else "[^/]+"
        end = variable.end()
    pattern += re.escape(host[end:])
    if "(?P<value>" not in pattern:
        return _NOTHING
    return re.compile(pattern, re.IGNORECASE)


_NOTHING = re.compile(r"(?P<value>)(?!)")
