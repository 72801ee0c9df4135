"""What can go wrong with the network of instances."""


class NetworkError(Exception):
    """The machine's network could not be brought into the wanted state; the message says what, and the cure."""
