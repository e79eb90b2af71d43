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
    """Its name; with a `*` for each of `parts`, where it comes in one package for each provider."""
    registry: Literal["pip", "npm"]
    files: str
    """Which files of it: a pattern in which `*` stands for anything, `/` included."""
    reader: Reader
    skip: str = ""
    settings: str = ""
    """Files beside the read ones that say whether PKCE is used, where that is not said in the same file."""
    parts: tuple[str, ...] = ()
    """The providers, as the package names have them."""

    @property
    def names(self) -> dict[str, str]:
        """Return the provider by the name of its package; an empty one where a package has many."""
        return {self.package.replace("*", part): part for part in self.parts} or {self.package: ""}


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
    Source("n8n-nodes-base", "npm", "*/dist/credentials/*Api.credentials.js", javascript.apis_in, skip="*OAuth2Api*"),
    Source("@auth/core", "npm", "package/providers/*.js", javascript.claims_in),
    Source("@better-auth/core", "npm", "*/dist/social-providers/*.mjs", javascript.claims_in),
    Source("arctic", "npm", "*/dist/providers/*.js", javascript.claims_in),
    Source("hellojs", "npm", "*/src/modules/*.js", javascript.claims_in),
    Source("nuxt-auth-utils", "npm", "*/server/lib/oauth/*.js", javascript.claims_in),
    Source("@hapi/bell", "npm", "*/lib/providers/*.js", javascript.claims_in),
    Source("@fastify/oauth2", "npm", "package/index.js", javascript.blocks_in),
    Source(
        "@activepieces/piece-*",
        "npm",
        "package/src/*.js",
        javascript.claims_in,
        parts=(
            *("airtable", "asana", "clickup", "discord", "dropbox", "figma", "gmail", "google-calendar"),
            *("google-contacts", "google-drive", "google-sheets", "hubspot", "intercom", "pipedrive", "slack"),
            *("square", "surveymonkey", "todoist", "typeform", "webflow", "wordpress", "youtube", "zoho-books", "zoom"),
        ),
    ),
    Source(
        "@logto/connector-*",
        "npm",
        "package/lib/index.js",
        javascript.claims_in,
        parts=(
            *("amazon", "discord", "facebook", "github", "gitlab", "google", "huggingface", "kakao", "line"),
            *("linkedin", "naver", "patreon", "slack", "wechat-web", "x"),
        ),
    ),
)

OUT_OF_REACH = {
    "ampersand's connectors": "Go, in a repository only",
    "Socialite's providers": "PHP",
    "aspnet-contrib's providers": ".NET",
    "Power Platform's connectors": "in a repository only",
}
"""Sources that say much about providers and that neither pip nor npm brings: compare with them by hand."""


def fetch(registry: str, package: str, folder: Path) -> Path:
    """Return a package's archive in `folder`, downloaded unless it is there.

    Only wheels and npm tarballs: building a source distribution would run code of the package.

    Raises:
        FileNotFoundError: pip or npm did not bring it; both have said why.
    """
    place = folder / registry / re.sub(r"\W+", "-", package).strip("-")
    place.mkdir(parents=True, exist_ok=True)
    if not any(place.iterdir()):
        commands = {
            "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest=."],
            "npm": ["npm", "pack", "--silent", "--ignore-scripts"],
        }
        subprocess.run([*commands[registry], package], cwd=place, check=False, stdout=subprocess.DEVNULL)
    archive = next(place.iterdir(), None)
    if archive is None:
        raise FileNotFoundError(f"{package}: could not be downloaded with {registry}")
    return archive


def version_of(archive: Path) -> str:
    """Return the version in an archive's name."""
    found = re.search(r"-(\d[^-]*?)(?:-.*)?\.(?:whl|tgz)$", archive.name)
    return found[1] if found else ""


def claims_of(source: Source, archive: Path, provider: str = "") -> list[Claim]:
    """Return what a package says about providers, read in memory from its archive.

    `provider` is the only one that it is about, where its files do not have the name.
    """
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
            claims.append(Claim(claim.source, provider or claim.name, facts))
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
