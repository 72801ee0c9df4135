"""Volumes of a template: Secrets and ConfigMaps as files, in Kubernetes' words. Pure."""

import posixpath
from collections.abc import Mapping
from typing import Any

from registry.objects import Object
from registry.problem import (
    DATA_KEY,
    DNS_LABEL,
    DNS_SUBDOMAIN,
    Problems,
    boolean,
    integer,
    list_of,
    mapping,
    matching,
    text,
)
from store.volumes import DEFAULT_MODE, Item, Volume

MOST = 32
KINDS = ("secret", "configMap")
TAKEN = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf")
"""Where nothing can be mounted: on it, below or above."""
_ALONE = "secret and configMap are what a volume can be"
_NAME = matching(DNS_SUBDOMAIN, "a DNS subdomain", 253)
_MODE = integer(0, 0o777)
_ITEMS = list_of(
    mapping(
        {"key": matching(DATA_KEY, "letters, digits, '-', '_' and '.'", 253), "path": text, "mode": _MODE},
        required=("key", "path"),
    ),
    256,
)
_COMMON = {"items": _ITEMS, "defaultMode": _MODE, "optional": boolean}
_VOLUME = mapping(
    {
        "name": matching(DNS_LABEL, "a DNS label"),
        "secret": mapping({"secretName": _NAME, **_COMMON}, required=("secretName",)),
        "configMap": mapping({"name": _NAME, **_COMMON}, required=("name",)),
    },
    dict.fromkeys(("emptyDir", "projected", "hostPath", "persistentVolumeClaim", "csi", "nfs", "downwardAPI"), _ALONE),
    required=("name",),
)
_MOUNT = mapping(
    {"name": text, "mountPath": text, "readOnly": boolean},
    {
        **dict.fromkeys(
            ("subPath", "subPathExpr"), "such a file would not follow its source; mount the whole at a directory of its own"
        ),
        "mountPropagation": "instances have no mounts below",
    },
    required=("name", "mountPath"),
)


def volumes(problems: Problems, value: Any, path: str) -> None:
    """Checks `spec.volumes`."""
    list_of(_VOLUME, MOST)(problems, value, path)
    names: set[str] = set()
    for index, volume in enumerate(_mappings(value)):
        given = [kind for kind in KINDS if kind in volume]
        if len(given) != 1:
            problems.bad(f"{path}[{index}]", " and ".join(given) or "neither", "exactly one of secret and configMap")
        for kind in given:
            items = volume[kind].get("items") if isinstance(volume[kind], Mapping) else None
            _items(problems, items, f"{path}[{index}].{kind}.items")
        name = volume.get("name")
        if isinstance(name, str) and name in names:
            problems.twice(f"{path}[{index}].name", name)
        names |= {name} if isinstance(name, str) else set()


def _items(problems: Problems, value: Any, path: str) -> None:
    seen: list[str] = []
    for number, item in enumerate(_mappings(value)):
        file, where = item.get("path"), f"{path}[{number}].path"
        if not isinstance(file, str):
            continue
        plain = posixpath.normpath(file)
        if not file or file.startswith("/") or plain == "." or plain.startswith("..") or "\0" in file or len(file) > 1024:
            problems.bad(where, file, "a path below the volume, of at most 1024 characters, that does not begin with '..'")
        elif any(_meet(plain, other) for other in seen):
            problems.bad(where, file, "a path apart from those of other items")
        seen.append(plain)


def mounts(problems: Problems, value: Any, path: str) -> None:
    """Checks `containers[0].volumeMounts`."""
    list_of(_MOUNT, MOST)(problems, value, path)
    seen: list[str] = []
    for index, mount in enumerate(_mappings(value)):
        given, where = mount.get("mountPath"), f"{path}[{index}].mountPath"
        if not isinstance(given, str):
            continue
        plain = _plain(given)
        if not given.startswith("/") or ".." in given.split("/") or "\0" in given or len(given) > 1024:
            problems.bad(where, given, "an absolute path without '..', of at most 1024 characters")
        elif plain == "/" or any(_meet(plain, each) for each in TAKEN):
            problems.bad(where, given, f"a directory of its own: not /, and apart from {', '.join(TAKEN)}")
        elif any(_meet(plain, other) for other in seen):
            problems.bad(where, given, "a directory apart from those of other mounts")
        seen.append(plain)


def check(problems: Problems, spec: Mapping[str, Any], path: str) -> None:
    """That every mount has its volume, and every volume its mount."""
    known = [volume.get("name") for volume in _mappings(spec.get("volumes"))]
    used: set[Any] = set()
    for number, container in enumerate(_mappings(spec.get("containers"))):
        for index, mount in enumerate(_mappings(container.get("volumeMounts"))):
            name = mount.get("name")
            if isinstance(name, str) and name not in known:
                problems.bad(f"{path}.containers[{number}].volumeMounts[{index}].name", name, "the name of one of volumes")
            used |= {name} if isinstance(name, str) else set()
    for index, name in enumerate(known):
        if isinstance(name, str) and name not in used:
            problems.bad(f"{path}.volumes[{index}].name", name, "a volume that one of volumeMounts names")


def compiled(spec: Mapping[str, Any]) -> list[Volume]:
    """`Revision.volumes` of a valid spec: those that are mounted."""
    by_name = {volume["name"]: volume for volume in spec.get("volumes", [])}
    return [_volume(by_name[each["name"]], each["mountPath"]) for each in spec["containers"][0].get("volumeMounts", [])]


def _volume(volume: Object, where: str) -> Volume:
    source = volume["secret"] if "secret" in volume else volume["configMap"]
    items = source.get("items", [])
    return Volume(
        path=_plain(where),
        secret=source["secretName"] if "secret" in volume else "",
        config=source["name"] if "configMap" in volume else "",
        items=[Item(key=each["key"], path=posixpath.normpath(each["path"]), mode=each.get("mode", -1)) for each in items],
        mode=source.get("defaultMode", DEFAULT_MODE),
        optional=source.get("optional", False),
    )


def _plain(where: str) -> str:
    # POSIX gives a path that begins with two slashes a meaning of its own, and normpath keeps them.
    return "/" + posixpath.normpath(where).lstrip("/")


def _meet(one: str, other: str) -> bool:
    """Whether one is the other, or below it."""
    return one == other or one.startswith(other + "/") or other.startswith(one + "/")


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The items of a list that are mappings; others are complained of elsewhere, and count as empty."""
    return [each if isinstance(each, Mapping) else {} for each in value] if isinstance(value, list) else []
