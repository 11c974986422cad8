"""How torch says that a device has no memory left.

Invariant: every other error is told apart from it; only this one may go away with a smaller batch.
"""

import torch

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""Found in the message of the ordinary RuntimeError that torch raises when the host has no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory, on any device."""
    is_hosts = isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)
    return is_hosts or isinstance(error, torch.OutOfMemoryError)
