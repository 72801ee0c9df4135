"""The key map of etcd. Everything Ebb stores is under `/ebb/`, and this table is all of it.

| key                              | value           | written by            | lease of        |
|----------------------------------|-----------------|-----------------------|-----------------|
| objects/<kind>/<project>/<name>  | API object      | registry              |                 |
| projects/<project>               | Project         | registry              |                 |
| users/<principal>                | User            | registry              |                 |
| tokens/<id>                      | Token           | registry              |                 |
| bindings/<project>/<principal>   | Binding         | registry              |                 |
| secrets/<project>/<name>         | Values, sealed  | registry              |                 |
| configs/<project>/<name>         | Values          | registry              |                 |
| certificates/<project>/<name>    | Certificate     | registry              |                 |
| identity/<kid>                   | IdentityKey     | registry              |                 |
| signers/<kid>                    | SigningKey      | registry              |                 |
| accounts/<authority>             | Account         | registry              |                 |
| challenges/<token>               | Challenge       | registry              | 10 minutes      |
| revisions/<project>/<revision>   | Revision        | registry              |                 |
| routes/<project>/<route>         | RouteEntry      | registry              |                 |
| domains/<host>                   | Domain          | registry              |                 |
| scale/<project>/<revision>       | Scale           | autoscaler            |                 |
| habits/<project>/<revision>      | Habits          | autoscaler            |                 |
| assignments/<node>/<instance>    | Assignment      | autoscaler            |                 |
| instances/<node>/<instance>      | Instance        | node agent            | the node        |
| nodes/<node>                     | Node            | node agent            | the node        |
| members/<role>/<member>          | Member          | the process itself    | the process     |
| wakes/<project>/<revision>       | Wake            | ingress, without NATS | 5 s             |
| elections/<name>                 | who leads       | candidates            | the candidate   |
| gate/leases                      | 32 bytes        | the first gate        |                 |
"""

ROOT = "/ebb/"

OBJECTS = ROOT + "objects/"
PROJECTS = ROOT + "projects/"
USERS = ROOT + "users/"
TOKENS = ROOT + "tokens/"
BINDINGS = ROOT + "bindings/"
SECRETS = ROOT + "secrets/"
CONFIGS = ROOT + "configs/"
CERTIFICATES = ROOT + "certificates/"
IDENTITY = ROOT + "identity/"
SIGNERS = ROOT + "signers/"
ACCOUNTS = ROOT + "accounts/"
CHALLENGES = ROOT + "challenges/"
REVISIONS = ROOT + "revisions/"
ROUTES = ROOT + "routes/"
DOMAINS = ROOT + "domains/"
SCALE = ROOT + "scale/"
HABITS = ROOT + "habits/"
ASSIGNMENTS = ROOT + "assignments/"
INSTANCES = ROOT + "instances/"
NODES = ROOT + "nodes/"
MEMBERS = ROOT + "members/"
WAKES = ROOT + "wakes/"
ELECTIONS = ROOT + "elections/"
GATE_LEASES = ROOT + "gate/leases"
"""What gates number leases with (store/leases.py)."""


def objects(kind: str, project: str = "") -> str:
    """Prefix of all API objects of `kind` (plural, lower case: `services`), of one project or of all."""
    return f"{OBJECTS}{kind}/{project}/" if project else f"{OBJECTS}{kind}/"


def object_(kind: str, project: str, name: str) -> str:
    return f"{OBJECTS}{kind}/{project}/{name}"


def project(name: str) -> str:
    return f"{PROJECTS}{name}"


def user(principal: str) -> str:
    return f"{USERS}{principal}"


def token(token_id: str) -> str:
    return f"{TOKENS}{token_id}"


def bindings(project: str) -> str:
    """Prefix of who has roles in `project`."""
    return f"{BINDINGS}{project}/"


def binding(project: str, principal: str) -> str:
    return f"{BINDINGS}{project}/{principal}"


def secret(project: str, name: str) -> str:
    return f"{SECRETS}{project}/{name}"


def config(project: str, name: str) -> str:
    return f"{CONFIGS}{project}/{name}"


def certificate(project: str, name: str) -> str:
    return f"{CERTIFICATES}{project}/{name}"


def identity(kid: str) -> str:
    """Where the public half of a key that signs identity tokens is."""
    return f"{IDENTITY}{kid}"


def signer(kid: str) -> str:
    """Where its private half is, sealed."""
    return f"{SIGNERS}{kid}"


def account(authority: str) -> str:
    """The account at an ACME authority; `authority` is a digest of its directory's URL."""
    return f"{ACCOUNTS}{authority}"


def challenge(token: str) -> str:
    return f"{CHALLENGES}{token}"


def revision(project: str, name: str) -> str:
    return f"{REVISIONS}{project}/{name}"


def route(project: str, name: str) -> str:
    return f"{ROUTES}{project}/{name}"


def domain(host: str) -> str:
    """Where the claim to `host` (`shop.example`, `*.shop.example`) is: one key a host, so one owner."""
    return f"{DOMAINS}{host}"


def scale(project: str, revision_name: str) -> str:
    return f"{SCALE}{project}/{revision_name}"


def habits(revision_key: str) -> str:
    """Where what was learned of `<project>/<revision>` is."""
    return f"{HABITS}{revision_key}"


def assignments(node: str) -> str:
    """Prefix of one node's assignments."""
    return f"{ASSIGNMENTS}{node}/"


def assignment(node: str, instance: str) -> str:
    return f"{ASSIGNMENTS}{node}/{instance}"


def instances(node: str) -> str:
    """Prefix of one node's instances."""
    return f"{INSTANCES}{node}/"


def instance(node: str, name: str) -> str:
    return f"{INSTANCES}{node}/{name}"


def node(name: str) -> str:
    return f"{NODES}{name}"


def members(role: str) -> str:
    """Prefix of a role's live processes."""
    return f"{MEMBERS}{role}/"


def member(role: str, name: str) -> str:
    return f"{MEMBERS}{role}/{name}"


def wake(project: str, revision_name: str) -> str:
    return f"{WAKES}{project}/{revision_name}"


def election(name: str) -> str:
    return f"{ELECTIONS}{name}"


def tail(key: str, prefix: str) -> tuple[str, ...]:
    """The path segments of `key` after `prefix`: `tail("/ebb/scale/p/r", SCALE) == ("p", "r")`."""
    return tuple(key[len(prefix) :].split("/"))
