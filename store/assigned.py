"""Which instances count: those that the autoscaler gave to the node that speaks of them. Pure.

A node that was taken over may say what it likes of itself. Were an instance believed at its node's word, it could name any
revision, and any address, and be sent that revision's requests.
"""

from sys import intern

from store import keys
from store.model import Assignment, Instance


def kept(given: Assignment) -> Assignment:
    """What is remembered of an assignment: whose it is. There is one an instance, and all of a revision share these words."""
    return Assignment(
        instance="",
        project=intern(given.project),
        revision=intern(given.revision),
        service=intern(given.service),
        node="",
        goal="",
    )


def about(key: str, said: Instance | None) -> Instance | None:
    """What stands at `key`, if it is about the instance that the key is of: only that is its writer's to speak of."""
    return said if said is not None and key == keys.instance(said.node, said.instance) else None


def vouches(given: Assignment | None, news: Instance) -> bool:
    """Whether what a node says of an instance is about what it was given."""
    return given is not None and given.revision == news.revision and given.project == news.project
