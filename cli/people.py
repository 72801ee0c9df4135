"""What `ebb login`, `whoami`, `token`, `user` and `role` do."""

import sys
import time
from collections.abc import Sequence
from urllib.parse import quote

from cli import logins, rows, show
from cli.client import EBB, Api, Object
from cli.errors import BadUsage, Refused
from cli.logins import Login
from cli.show import Form

PLATFORM_ADMIN = "platform-admin"
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def login(address: str, token: str, ca_file: str, server_name: str) -> None:
    """Check the token there, and remember it. Raises Refused, BadUsage."""
    token = sys.stdin.readline().strip() if token == "-" else token.strip()
    if not token:
        raise BadUsage("give the token: --token TOKEN, or --token - to read it from stdin")
    address = logins.checked(address)
    ca = logins.pem(ca_file) if ca_file else ""
    tried = Login(address, token, ca, server_name)
    try:
        me = Api.of(tried).get(f"{EBB}/whoami")
    except Refused as error:
        if server_name or not ca or "certificate" not in str(error):
            raise
        # The engine's certificate names this machine and its own domain; an address of another kind is not in it.
        tried = Login(address, token, ca, logins.SERVER_NAME)
        me = Api.of(tried).get(f"{EBB}/whoami")
    kept = logins.keep(tried)
    sys.stdout.write(f"logged in at {address} as {me['principal']} (kept in {kept})\n")


def logout(address: str) -> None:
    """Forget the token; it still counts. Raises Refused."""
    if not logins.forget(address.rstrip("/")):
        raise Refused("there is no such login" if address else "there is no login")
    sys.stdout.write("forgotten here; the token itself still counts: ebb token revoke ID ends it\n")


def whoami(api: Api, form: Form) -> None:
    """The principal, and what they may where."""
    me = api.get(f"{EBB}/whoami")
    show.only_data(form, "whoami")
    if form is not Form.TABLE:
        show.data(me, form)
        return
    sys.stdout.write(f"{me['principal']} at {api.address}, with token {me['token']}{_limits(me)}\n")
    for project, roles in sorted(me["roles"].items()):
        sys.stdout.write(f"  {'everywhere' if project == '*' else project}: {', '.join(roles)}\n")
    if not me["roles"]:
        sys.stdout.write("  no role anywhere\n")


def _limits(token: Object) -> str:
    said = [f"in {', '.join(token['projects'])}"] if token.get("projects") else []
    said += [f"at most {token['role']}"] if token.get("role") else []
    said += [f"until {token['expiresAt']}"] if token.get("expiresAt") else []
    return f" ({'; '.join(said)})" if said else ""


# -- tokens ---------------------------------------------------------------------------------------------------------------------


def token_create(api: Api, principal: str, scope: Sequence[str], role: str, ttl: str, note: str, form: Form) -> None:
    """Print the token, once."""
    body: Object = {"projects": list(scope), "role": role, "ttlS": ttl_s(ttl), "note": note}
    made = api.post(f"{EBB}/tokens", {}, {**body, **({"principal": principal} if principal else {})})
    if form in (Form.JSON, Form.YAML):
        show.data(made, form)
        return
    sys.stderr.write(f"token {made['id']} of {made['principal']}{_limits(made)}; it is shown this once:\n")
    sys.stdout.write(f"{made['token']}\n")


def token_identity(api: Api, audience: str, form: Form) -> None:
    """Print it and nothing else: it is used as `Authorization: Bearer $(ebb token identity --audience URL)`."""
    made = api.post(f"{EBB}/identity-tokens", {}, {"audience": audience})
    if form in (Form.JSON, Form.YAML):
        show.data(made, form)
        return
    sys.stdout.write(f"{made['token']}\n")


def ttl_s(text: str) -> int:
    """`90d`, `12h`, `30m`, `never`. Raises BadUsage."""
    if text == "never":
        return 0
    if text[:-1].isdigit() and text[-1] in _UNITS and int(text[:-1]):
        return int(text[:-1]) * _UNITS[text[-1]]
    raise BadUsage(f"--ttl {text}: want a number of days, hours or minutes such as 90d, 12h, 30m; or never")


def token_list(api: Api, everybody: bool, ended: bool, form: Form) -> None:
    """ID PRINCIPAL SCOPE ROLE STATE EXPIRES AGE NOTE."""
    params = {name: "true" for name, wanted in (("all", everybody), ("ended", ended)) if wanted}
    found = api.items(f"{EBB}/tokens", params)
    head, now = ["ID", "PRINCIPAL", "SCOPE", "ROLE", "STATE", "EXPIRES", "AGE", "NOTE"], time.time()

    def table() -> list[list[str]]:
        return [
            [
                one["id"], one["principal"], ",".join(one["projects"]) or "-", one["role"] or "-", one["state"],
                one.get("expiresAt", "never"), rows.age(one.get("createdAt", ""), now), one["note"],
            ]
            for one in found
        ]  # fmt: skip

    show.listing(form, found, head, table, lambda: [one["id"] for one in found])


def token_revoke(api: Api, ids: Sequence[str]) -> None:
    for each in ids:
        gone = api.delete(f"{EBB}/tokens/{quote(each, safe='')}")["revoked"]
        sys.stdout.write(f"revoked {', '.join(gone)}\n")


# -- users and robots -----------------------------------------------------------------------------------------------------------


def user_add(api: Api, principal: str, note: str) -> None:
    made = api.post(f"{EBB}/users", {}, {"principal": principal, "note": note})
    sys.stdout.write(
        f"added {made['principal']}; next: ebb role grant ROLE {principal} -n PROJECT, ebb token create --for {principal}\n"
    )


def user_list(api: Api, form: Form) -> None:
    """PRINCIPAL STATE ROLES AGE NOTE."""
    found, now = api.items(f"{EBB}/users"), time.time()

    def table() -> list[list[str]]:
        shown = []
        for one in found:
            roles = "; ".join(f"{project}: {', '.join(held)}" for project, held in sorted(one["roles"].items())) or "-"
            state = "disabled" if one["disabled"] else "enabled"
            shown.append([one["principal"], state, roles, rows.age(one["createdAt"], now), one["note"]])
        return shown

    show.listing(
        form, found, ["PRINCIPAL", "STATE", "ROLES", "AGE", "NOTE"], table, lambda: [one["principal"] for one in found]
    )


def user_change(api: Api, principals: Sequence[str], what: str) -> None:
    """`what`: enable, disable or remove."""
    for principal in principals:
        path = f"{EBB}/users/{quote(principal, safe=':')}"
        if what == "remove":
            api.delete(path)
        else:
            api.patch(path, {"disabled": what == "disable"})
        sys.stdout.write(f"{what}d {principal}\n")


# -- roles ----------------------------------------------------------------------------------------------------------------------


def role_change(api: Api, role: str, principals: Sequence[str], *, grant: bool) -> None:
    """Of the project; platform-admin is of the platform."""
    root = EBB if role == PLATFORM_ADMIN else f"{EBB}/namespaces/{api.project}"
    where = "everywhere" if role == PLATFORM_ADMIN else f"in project {api.project}"
    for principal in principals:
        path = f"{root}/bindings/{quote(role, safe='')}/{quote(principal, safe=':/')}"
        if grant:
            api.put(path, {})
        else:
            api.delete(path)
        sys.stdout.write(f"{principal} is {'now' if grant else 'no longer'} {role} {where}\n")


def role_list(api: Api, platform: bool, form: Form) -> None:
    """PRINCIPAL ROLES."""
    found = api.items(f"{EBB}/bindings" if platform else api.own("bindings"))
    names = [one["principal"] for one in found]
    show.listing(
        form,
        found,
        ["PRINCIPAL", "ROLES"],
        lambda: [[one["principal"], ", ".join(one["roles"])] for one in found],
        lambda: names,
    )
