"""Why an image cannot be had, as a reason people and programs can act on."""


class ImageProblem(Exception):
    """`reason` in CamelCase and `message` with what, the value, the limit and the cure."""

    reason = "ImagePullFailed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ImageNotFound(ImageProblem):
    reason = "ImageNotFound"


class Unauthorized(ImageProblem):
    reason = "Unauthorized"


class Unsigned(ImageProblem):
    """No signature by one of the keys that the project asks for."""

    reason = "Unsigned"


class WrongPlatform(ImageProblem):
    reason = "WrongPlatform"


class BadDigest(ImageProblem):
    """Bytes are not what their digest or size says."""

    reason = "BadDigest"


class TooLarge(ImageProblem):
    reason = "TooLarge"


class OverQuota(ImageProblem):
    """The project has as many bytes of images here as it may."""

    reason = "QuotaExceeded"


class BadImage(ImageProblem):
    """Not an image that can be run: malformed, of an unknown kind, or inconsistent with itself."""

    reason = "BadImage"


class RegistryUnavailable(ImageProblem):
    """The registry could not be reached or failed, also when asked again. Later it may work."""

    reason = "RegistryUnavailable"


class DiskFull(ImageProblem):
    reason = "DiskFull"


class EngineUnavailable(ImageProblem):
    """containerd is away. Later it may work."""

    reason = "ContainerdUnavailable"
