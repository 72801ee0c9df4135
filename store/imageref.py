"""The name of an image, in the grammar everybody has: `[host[:port]/]path[:tag][@algorithm:hex]`.

`nginx` is `docker.io/library/nginx:latest`. The first segment is a host only when it has a dot or a colon or is
`localhost`; everything else belongs to docker.io. Pure.
"""

import re
from dataclasses import dataclass

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::([0-9]{{1,5}}))?")


class BadReference(ValueError):
    """The text is not the name of an image; the message says what is wrong and what is allowed."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed name. With a digest the tag is only a remark, and may be empty; without one the tag is never empty."""

    host: str
    """With its port where one was given: `docker.io`, `localhost:5000`."""
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """`host/repository`."""
        return f"{self.host}/{self.repository}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag

    def at(self, digest: str) -> str:
        """`host/repository@digest`: the name of exactly these bytes. Raises BadReference for a malformed digest."""
        return f"{self.name}@{check_digest(digest)}"


def check_digest(digest: str) -> str:
    """`digest` itself. Raises BadReference when it is none."""
    if not _DIGEST.fullmatch(digest):
        raise BadReference(f"digest {_shown(digest)}: want sha256: and 64, or sha512: and 128, lower-case hex digits")
    return digest


def parse(text: str) -> ImageRef:
    """The image that `text` names, with host and tag filled in. Raises BadReference."""
    if not text:
        raise BadReference("image: empty; want [HOST[:PORT]/]PATH[:TAG][@sha256:HEX], like nginx:1.25")
    if len(text) > 1024:
        raise BadReference(f"image: {len(text)} characters; at most 1024 are allowed")
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest)
    rest, tag = _split_tag(rest)
    host, repository = _split_host(rest)
    if not repository:
        raise BadReference(f"image {_shown(text)}: no repository; want [HOST[:PORT]/]PATH[:TAG][@sha256:HEX]")
    for segment in repository.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise BadReference(_segment_problem(text, segment))
    if host == DEFAULT_HOST and "/" not in repository:
        repository = f"library/{repository}"
    if len(host) + 1 + len(repository) > MAX_NAME:
        got = len(host) + 1 + len(repository)
        raise BadReference(f"image {_shown(text)}: host and path have {got} characters; at most {MAX_NAME} are allowed")
    return ImageRef(host, repository, tag if (tag or digest) else DEFAULT_TAG, digest)


def _split_tag(text: str) -> tuple[str, str]:
    head, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, ""
    if not _TAG.fullmatch(tag):
        raise BadReference(
            f"tag {_shown(tag)} of image {_shown(text)}: want 1 to 128 of A-Z a-z 0-9 _ . - that begin with none of . -"
        )
    return head, tag


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not (first == "localhost" or set(first) & {".", ":"}):
        return DEFAULT_HOST, text
    match = _HOST.fullmatch(first)
    if match is None or not 0 < int(match[1] or 443) < 65536:
        raise BadReference(f"host {_shown(first)}: want a DNS name or IP address with an optional port 1-65535")
    return (DEFAULT_HOST if first == "index.docker.io" else first), rest


def _segment_problem(text: str, segment: str) -> str:
    if not segment:
        return f"image {_shown(text)}: empty path segment; want names separated by single slashes"
    cure = "; use lower case" if segment.lower() != segment else ""
    return (
        f"image {_shown(text)}: path segment {_shown(segment)}: want a-z 0-9, with single . or _, __ or dashes in between{cure}"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:97] + "...")
