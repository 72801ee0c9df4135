"""The kernel's nftables, through libnftables (ctypes): never by starting `nft`. Everything here blocks."""

import contextlib
import ctypes
import os

from nodeagent.network.errors import NetworkError

_LIBRARY = "libnftables.so.1"
_DESCRIPTORS_MOST = 1024
"""The library waits with select(2), which ends the whole process when a descriptor has this number or a higher one (FD_SETSIZE)."""


class Nft:
    """One line to the kernel, in the network namespace of the thread that opens it. One thread at a time.

    It is opened once and kept: with hundreds of instances, the descriptors of their networks take all the low numbers.
    """

    def __init__(self) -> None:
        """Raises NetworkError when the library or the kernel's module is missing, or no low descriptor is free."""
        self._context: int | None = None
        self._library = _load()
        free = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.close(free)
        if free >= _DESCRIPTORS_MOST - 8:
            raise NetworkError(f"the next descriptor is {free}, nftables needs one below {_DESCRIPTORS_MOST}; open Nft earlier")
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NetworkError("libnftables gives no context; is the nf_tables kernel module there?")
        self._library.nft_ctx_buffer_error(self._context)

    def apply(self, commands: str) -> None:
        """Run nft commands in one transaction. Raises NetworkError with the library's words."""
        if self._context is None:
            raise NetworkError("nftables was closed already")
        if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()) != 0:
            words = self._library.nft_ctx_get_error_buffer(self._context) or b""
            raise NetworkError(f"nftables refused the engine's table: {words.decode(errors='replace').strip()}")

    def show(self, command: str) -> str:
        """What an nft command that lists something prints. Raises NetworkError."""
        if self._context is None:
            raise NetworkError("nftables was closed already")
        self._library.nft_ctx_buffer_output(self._context)
        try:
            self.apply(command)
            return (self._library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")
        finally:
            self._library.nft_ctx_unbuffer_output(self._context)

    def close(self) -> None:
        """Idempotent."""
        context, self._context = self._context, None
        if context is not None:
            self._library.nft_ctx_free(context)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NetworkError(f"{_LIBRARY} cannot be loaded ({error}); install the package libnftables1") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    for name in ("nft_ctx_buffer_output", "nft_ctx_unbuffer_output", "nft_ctx_get_output_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    return library
