"""How torch says that a device has no memory left.

Invariant: every other error is told apart from it; only this one may go away with a smaller batch.
"""

from contextlib import suppress

import torch

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""Found in the message of the ordinary RuntimeError that torch raises when the host has no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory, on any device."""
    is_hosts = isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)
    return is_hosts or isinstance(error, torch.OutOfMemoryError)


def release_cached() -> None:
    """Give the memory that torch keeps on CUDA devices without using it back to the device, as far as it will.

    torch 2.11 and older refuse it once the recording of a CUDA graph has failed (https://github.com/pytorch/pytorch,
    issue 180395); what is kept can be used all the same.
    """
    if torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
