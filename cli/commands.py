"""What the commands do that end: ask the API, print the answer."""

import base64
import sys
import time
from pathlib import Path
from typing import Any

from cli import images, logins, manifest, rollout, rows, show
from cli.client import EBB, SERVING, Api, Object
from cli.errors import BadUsage, Refused
from cli.show import Form
from cli.steps import Steps

DELETE_WAIT_S = 60.0


def connect(address: str, project: str) -> Api:
    """The API to talk to."""
    return Api.of(logins.find(address), project)


def deploy(api: Api, name: str, wanted: manifest.Wanted, archive: Path | None, *, tag: str, wait_s: float, form: Form) -> None:
    """Import if asked, write the Service, follow it until it is ready, tag, print the URL. `wait_s` 0: do not wait."""
    import msgspec

    with Steps(quiet=form is not Form.TABLE) as steps:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        existed = False

        def edit(old: Object | None) -> Object:
            nonlocal existed
            existed = old is not None
            return manifest.service(name, wanted, old, at)

        if archive is not None:
            if not archive.is_file():
                raise BadUsage(f"--archive {archive}: no such file")
            # A name of its own: another archive imported for the same service must not change what runs of this one.
            image = f"{name}:import-{int(time.time() * 1000):x}"
            wanted = msgspec.structs.replace(wanted, image=image)
            api.change("services", name, edit, dry_run=True)  # What is refused leaves no image behind.
            wanted = msgspec.structs.replace(wanted, image=images.upload(api, archive, image, api.project, steps)[0]["name"])
        written = api.change("services", name, edit)
        generation = written["metadata"].get("generation", 1)
        steps.done(f"service {name} {'changed' if existed else 'created'} (generation {generation})")
        if wait_s:
            image = written["spec"]["template"]["spec"]["containers"][0]["image"]
            try:
                written = rollout.Rollout(api, name, steps).wait(written, image, wait_s)
            except Refused as error:
                steps.failed(str(error))
                raise Refused(
                    f"service {name} is not deployed; deploy it again to mend it, or take it away: ebb delete {name}"
                    if not existed
                    else f"service {name} serves on with what was ready before; deploy it again to mend it"
                ) from None
        if tag:
            written = _tag(api, name, tag, wait_s, steps)
    if form is Form.NAME:
        sys.stdout.write(f"{name}\n")
    elif form is not Form.TABLE:
        show.data(rollout.result(written), form)
    elif wait_s:
        status = written.get("status") or {}
        if wanted.no_traffic:
            latest = status.get("latestCreatedRevisionName", "REVISION")
            sys.stderr.write(f"no traffic goes to {latest} yet: ebb traffic {name} --to {latest}=PERCENT …\n")
        urls = [share["url"] for share in status.get("traffic") or [] if tag and share.get("tag") == tag and share.get("url")]
        sys.stdout.write(f"{(urls or [status.get('url', '')])[0]}\n")
    else:
        sys.stdout.write(f"service {name} written; see how it goes: ebb services {name}\n")


def _tag(api: Api, name: str, tag: str, wait_s: float, steps: Steps) -> Object:
    def edit(old: Object | None) -> Object:
        if old is None:
            raise Refused(f"service {name} was deleted meanwhile")
        revision = (old.get("status") or {}).get("latestCreatedRevisionName") or "LATEST"
        spec = {**old["spec"], "traffic": manifest.traffic(old, [], [f"{tag}={revision}"], [], False)}
        return {**old, "spec": spec}

    written = api.change("services", name, edit)
    if wait_s:
        written = _settled(api, name, written["metadata"].get("generation", 1), wait_s)
    steps.done(f"tag {tag}")
    return written


def _settled(api: Api, name: str, generation: int, wait_s: float) -> Object:
    """The service once the controller has acted on `generation`. Raises Refused when it cannot be, or not in time."""
    deadline = time.monotonic() + wait_s
    while True:
        service = api.get(api.path("services", name))
        status = service.get("status") or {}
        said = rows.condition(service, "RoutesReady")
        if status.get("observedGeneration", 0) >= generation and said.get("status") == "True":
            return dict(service)
        if status.get("observedGeneration", 0) >= generation and said.get("status") == "False":
            raise Refused(f"{name}: {said.get('reason')}: {said.get('message')}")
        if time.monotonic() > deadline:
            raise Refused(f"{name}: its route was not programmed within {wait_s:g} s: {said.get('message', 'no answer')}")
        time.sleep(0.05)


def services(api: Api, names: list[str], everywhere: bool, form: Form) -> None:
    """List services; with one name and a table also its address by tag and what is wrong."""
    if names:
        found = [api.named("services", name) for name in names]
    else:
        found = api.items(f"{SERVING}/services" if everywhere else api.path("services"))
    value: Any = found[0] if len(names) == 1 else found
    head = ["NAME", "URL", "LATEST", "READY", "TRAFFIC", "AGE"]

    def made() -> list[list[str]]:
        shown = rows.services(found, time.time())
        return (
            [[f"{o['metadata']['namespace']}/{r[0]}", *r[1:]] for o, r in zip(found, shown, strict=True)]
            if everywhere
            else shown
        )

    show.listing(form, value, head, made, lambda: [o["metadata"]["name"] for o in found])
    if form is Form.TABLE:
        for obj in found if names else []:
            for share in (obj.get("status") or {}).get("traffic") or []:
                if share.get("tag"):
                    sys.stdout.write(f"\ntag {share['tag']}: {share.get('revisionName', '')} {share.get('url', '')}\n")
            told: set[str] = set()  # Ready repeats what the part below it says
            for said in sorted((obj.get("status") or {}).get("conditions") or [], key=lambda c: c["type"] != "Ready"):
                message = str(said.get("message", ""))
                if said.get("status") != "True" and message not in told:
                    sys.stdout.write(f"\n{said['type']} is {said['status']}: {said.get('reason', '')}: {message}\n")
                told.add(message)


def revisions(api: Api, names: list[str], service: str, form: Form) -> None:
    """List revisions."""
    params = {"labelSelector": f"serving.knative.dev/service={service}"} if service else None
    found = [api.named("revisions", n) for n in names] if names else api.items(api.path("revisions"), params)

    def made() -> list[list[str]]:
        owners, running = api.items(api.path("services")), api.items(api.own("instances"))
        return rows.revisions(found, owners, running, time.time())

    head = ["NAME", "SERVICE", "TRAFFIC", "TAGS", "INSTANCES", "READY", "AGE"]
    show.listing(form, found[0] if len(names) == 1 else found, head, made, lambda: [o["metadata"]["name"] for o in found])


def traffic(
    api: Api, name: str, to: list[str], tags: list[str], untag: list[str], to_latest: bool, wait: bool, form: Form
) -> None:
    """Change the split when anything is asked for, then show it."""
    service = api.named("services", name)
    if to or tags or untag or to_latest:
        selector = {"labelSelector": f"serving.knative.dev/service={name}"}
        known = sorted(o["metadata"]["name"] for o in api.items(api.path("revisions"), selector))

        def edit(old: Object | None) -> Object:
            if old is None:
                raise Refused(f"service {name} was deleted meanwhile")
            return {**old, "spec": {**old["spec"], "traffic": manifest.traffic(old, to, tags, untag, to_latest, known)}}

        service = api.change("services", name, edit)
        if wait:
            service = _settled(api, name, service["metadata"].get("generation", 1), 30)
    shares = (service.get("status") or {}).get("traffic") or []

    def made() -> list[list[str]]:
        return [
            [s.get("revisionName", "LATEST"), f"{s.get('percent') or 0}%", s.get("tag", "-"), s.get("url", "-"),
             "latest" if s.get("latestRevision") else ""] for s in shares
        ]  # fmt: skip

    names = [str(share.get("revisionName", "")) for share in shares]
    show.listing(form, shares, ["REVISION", "PERCENT", "TAG", "URL", ""], made, lambda: names)


def delete(api: Api, names: list[str], kind: str, wait: bool) -> None:
    """Delete each; say what could not be, go on with the rest, and end refused."""
    failed = []
    for name in names:
        try:
            api.named(kind, name)
            api.delete(api.path(kind, name))
            deadline = time.monotonic() + DELETE_WAIT_S
            while wait and api.find(kind, name) is not None:
                if time.monotonic() > deadline:
                    raise Refused(f"still being deleted after {DELETE_WAIT_S:g} s")
                time.sleep(0.05)
            sys.stdout.write(f"deleted {kind[:-1]} {name}\n")
        except Refused as error:
            failed.append(str(error) if repr(name) in str(error) else f"{name}: {error}")
    if failed:
        raise Refused("\n".join(failed))


def apply(api: Api, file: str, wait_s: float) -> None:
    """Create or change every object of a file, in its order."""
    import yaml

    try:
        documents = [d for d in yaml.safe_load_all(sys.stdin.read() if file == "-" else Path(file).read_text()) if d]
    except OSError as error:
        raise BadUsage(f"-f {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadUsage(f"-f {file}: not YAML: {error}") from None
    if not documents:
        raise BadUsage(f"-f {file}: holds no object")
    kinds = {"Service": "services", "Configuration": "configurations", "Route": "routes"}
    for number, body in enumerate(documents, 1):
        if not isinstance(body, dict) or body.get("kind") not in kinds or not (body.get("metadata") or {}).get("name"):
            got = body.get("kind") if isinstance(body, dict) else type(body).__name__
            raise BadUsage(f"-f {file}: document {number}: kind is {got!r}; want {', '.join(kinds)}, with metadata.name")
    for body in documents:
        _apply_one(api, body, kinds[body["kind"]], wait_s)


def _apply_one(api: Api, body: Object, kind: str, wait_s: float) -> None:
    name = body["metadata"]["name"]
    there = Api.of(api.login, body["metadata"]["namespace"]) if body["metadata"].get("namespace") else api
    before: list[Object | None] = [None]

    def edit(old: Object | None) -> Object:
        before[0] = old
        if old is None:
            return body
        kept = {key: old["metadata"][key] for key in ("resourceVersion", "uid") if key in old["metadata"]}
        return {**body, "metadata": {**body["metadata"], **kept}}

    written = there.change(kind, name, edit)
    old = before[0]
    changed = old is None or old["metadata"].get("generation") != written["metadata"].get("generation")
    word = "created" if old is None else "changed" if changed else "unchanged"
    sys.stdout.write(f"{body['kind'].lower()} {name} {word}\n")
    if kind == "services" and wait_s and (changed or rows.condition(written).get("status") != "True"):
        with Steps() as steps:
            image = ((written["spec"].get("template") or {}).get("spec") or {}).get("containers", [{}])[0].get("image", "")
            service = rollout.Rollout(there, name, steps).wait(written, image, wait_s)
        sys.stdout.write(f"{(service.get('status') or {}).get('url', '')}\n")


def story(api: Api, about: str, form: Form) -> None:
    """Print one life. Raises BadUsage."""
    show.only_data(form, "story")
    if not about.strip():
        raise BadUsage("story of what? ID is empty; want an answer's x-ebb-cause or x-request-id, an instance or a revision")
    events = api.items(f"{EBB}/story/{about}")
    head = ["AT ms", "STEP ms", "PROCESS", "WHAT", "ABOUT", "DETAIL"]
    show.listing(form, events, head, lambda: rows.story(events), list)


def instances(api: Api, service: str, revision: str, form: Form) -> None:
    """List instances."""
    params = {key: value for key, value in (("service", service), ("revision", revision)) if value}
    found = api.items(api.own("instances"), params)
    head = ["NAME", "REVISION", "NODE", "PHASE", "ADDRESS", "SINCE", "START ms", "WHY"]
    show.listing(form, found, head, lambda: rows.instances(found, time.time()), lambda: [i["instance"] for i in found])


def nodes(api: Api, form: Form) -> None:
    """List nodes."""
    found = api.items(f"{EBB}/nodes")
    head = ["NAME", "STATE", "CPU", "MEMORY", "INSTANCES", "IMAGES", "ZONE", "RUNTIMES"]
    show.listing(form, found, head, lambda: rows.nodes(found), lambda: [n["node"] for n in found])


def kubeconfig(api: Api) -> None:
    """Print a kubeconfig for this API and project, with the token."""
    import yaml

    login, tls = api.login, {}
    if login.ca:
        tls["certificate-authority-data"] = base64.b64encode(login.ca.encode()).decode()
    if login.server_name:
        tls["tls-server-name"] = login.server_name
    context = {"cluster": "ebb", "user": "ebb", "namespace": api.project}
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ebb", "cluster": {"server": api.address, **tls}}],
        "users": [{"name": "ebb", "user": {"token": login.token} if login.token else {}}],
        "contexts": [{"name": "ebb", "context": context}],
        "current-context": "ebb",
    }
    sys.stdout.write(yaml.safe_dump(made, sort_keys=False))


def version(form: Form) -> None:
    """Print the version, from the checkout this command runs from."""
    import tomllib

    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    number = tomllib.loads(text)["project"]["version"]
    if form in (Form.JSON, Form.YAML):
        show.data({"version": number}, form)
    else:
        sys.stdout.write(f"ebb {number}\n")
