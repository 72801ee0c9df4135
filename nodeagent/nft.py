"""The kernel's nftables, through libnftables (ctypes): never by starting `nft`. Everything here blocks."""

import ctypes

from nodeagent.network.errors import NetworkError

_LIBRARY = "libnftables.so.1"


def apply(commands: str) -> None:
    """Run nft commands in one transaction. Raises NetworkError with the library's words."""
    library = _load()
    context = library.nft_ctx_new(0)
    if not context:
        raise NetworkError("libnftables gives no context; is the nf_tables kernel module there?")
    try:
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            words = library.nft_ctx_get_error_buffer(context) or b""
            raise NetworkError(f"nftables refused the engine's table: {words.decode(errors='replace').strip()}")
    finally:
        library.nft_ctx_free(context)


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
    return library
