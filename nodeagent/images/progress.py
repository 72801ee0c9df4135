"""How far a pull is, told to whoever listens, at most five times a second an image."""

from collections.abc import Callable

from store.messages import PullProgress

INTERVAL_S = 0.2

Listener = Callable[[PullProgress], None]


class Progress:
    """The progress of one image. Layers are told by digest, in the manifest's order."""

    def __init__(self, node: str, image: str, clock: Callable[[], float]) -> None:
        self._node = node
        self._image = image
        self._clock = clock
        self._layers: dict[str, tuple[int, int]] = {}
        self._told_at = float("-inf")
        self._state = "resolving"
        self.listeners: list[Listener] = []

    def state(self, state: str, message: str = "") -> None:
        """Enter a state: resolving, pulling, unpacking, done or failed. Always told."""
        self._state = state
        self._tell(message)

    def expect(self, digest: str, total: int) -> None:
        self._layers[digest] = (0, total)

    def bytes(self, digest: str, done: int) -> None:
        """`done` bytes of a layer are here."""
        total = self._layers.get(digest, (0, done))[1]
        self._layers[digest] = (done, total)
        if self._clock() - self._told_at >= INTERVAL_S:
            self._tell("")

    def _tell(self, message: str) -> None:
        self._told_at = self._clock()
        layers = [(digest, done, total) for digest, (done, total) in self._layers.items()]
        said = PullProgress(node=self._node, image=self._image, state=self._state, layers=layers, message=message)
        for listener in list(self.listeners):
            listener(said)
