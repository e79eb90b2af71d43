"""Writes the digest of every base image into the Dockerfile and the compose file: `make pin-images`.

A tag is a name that its registry may give to another image tomorrow; a digest is the hash of the manifest. The digest
that is written here is worked out from the manifest that came, and never taken from what the registry says of it.
"""

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", "docker-compose.yml")
DOCKER_HUB = "https://registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""The lists that name one image for each platform: an image by itself would pin the platform of whoever ran this."""
MOST_BYTES = 4 * 1024 * 1024
SECONDS = 30

_REFERENCE = re.compile(
    r"(?P<before>^(?:FROM|\s+image:)\s+)(?P<image>[a-z0-9][a-z0-9./_-]*):(?P<tag>[\w.-]+)(?:@(?P<digest>\S+))?",
    re.MULTILINE,
)


class Image(NamedTuple):
    """An image of Docker Hub by its name and tag."""

    name: str
    tag: str

    @property
    def repository(self) -> str:
        """The name as the registry has it: official images are in a folder of their own."""
        return self.name if "/" in self.name else f"library/{self.name}"


class Refused(Exception):
    """The registry's answer is not one to build on."""


def main(arguments: list[str] | None = None) -> int:
    """Ask for every image first, and write only when all have answered; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT, help="where the Dockerfile and the compose file are")
    parser.add_argument("--registry", default=DOCKER_HUB, help="another registry that speaks the same API")
    options = parser.parse_args(arguments)
    texts = {options.folder / name: (options.folder / name).read_text() for name in FILES}
    images = sorted({image for text in texts.values() for image in images_in(text)})
    try:
        digests = {image: digest_of(image, options.registry) for image in images}
    except (Refused, OSError) as error:
        print(f"Nothing is changed: {error}", file=sys.stderr)
        return 1
    for file, text in texts.items():
        file.write_text(pinned(text, digests))
    for image, digest in digests.items():
        print(f"{image.name}:{image.tag}@{digest}")
    return 0


def images_in(text: str) -> set[Image]:
    """Return the images that a Dockerfile or compose file takes from elsewhere: evergrant's own is built from here."""
    found = {Image(match["image"], match["tag"]) for match in _REFERENCE.finditer(text)}
    return {image for image in found if image.name != "evergrant"}


def pinned(text: str, digests: dict[Image, str]) -> str:
    """Return the text with `@sha256:...` behind each image of `digests`, in place of an earlier one."""

    def with_digest(match: re.Match[str]) -> str:
        digest = digests.get(Image(match["image"], match["tag"]))
        return f"{match['before']}{match['image']}:{match['tag']}@{digest}" if digest else match[0]

    return _REFERENCE.sub(with_digest, text)


def digest_of(image: Image, registry: str) -> str:
    """Return the digest of the manifest that `registry` has for a tag.

    Raises:
        Refused: The answer is no list of images, or not the one that the registry says it is.
        OSError: The registry cannot be reached, or refuses.
    """
    url = f"{registry}/v2/{image.repository}/manifests/{image.tag}"
    headers = {"Accept": ", ".join(MANIFESTS)}
    try:
        manifest, answered = _get(url, headers)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 401:
                raise
            token = _token(error.headers.get("WWW-Authenticate", ""), registry)
        manifest, answered = _get(url, {**headers, "Authorization": f"Bearer {token}"})
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    told = answered.get("Docker-Content-Digest", digest)
    if told != digest:
        raise Refused(f"{image.name}:{image.tag} is said to be {told}, but what came is {digest}")
    try:
        listed = json.loads(manifest)
        media_type, platforms = listed["mediaType"], listed["manifests"]
    except (ValueError, KeyError, TypeError):
        media_type, platforms = "", []
    if media_type not in MANIFESTS or not platforms:
        raise Refused(f"{image.name}:{image.tag} is no list of images for each platform")
    return digest


def _token(challenge: str, registry: str) -> str:
    """Return what lets anybody read a public image, from where the registry sends us for it."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm", "")
    if not challenge.startswith("Bearer ") or urllib.parse.urlsplit(realm).scheme not in {
        "https",
        urllib.parse.urlsplit(registry).scheme,
    }:
        raise Refused(f"{registry} wants a credential that this command has not")
    body, _ = _get(f"{realm}?{urllib.parse.urlencode(asked)}", {})
    try:
        return str(json.loads(body)["token"])
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{realm} gave no token") from None


def _get(url: str, headers: dict[str, str]) -> tuple[bytes, Message]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
        body: bytes = answer.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise Refused(f"{url} answers with more than {MOST_BYTES} bytes")
        return body, answer.headers


if __name__ == "__main__":
    sys.exit(main())
