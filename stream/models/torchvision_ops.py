"""Makes torchvision importable beside a torch of another build; timm imports it.

PyPI's torchvision for Linux is linked to CUDA. Beside a CPU-only torch its compiled part does not load; torchvision
ignores that, then registers shape functions for two operators of that part and fails: "operator torchvision::nms does
not exist". The networks of this program use no operator of torchvision.
Invariant: nothing is defined where torchvision imports without help.
"""

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
"""Operators for which torchvision registers shape functions unconditionally (0.28.0 and 0.29.1)."""

_defined: list[torch.library.Library] = []
"""Definitions last as long as these objects."""


def import_torchvision() -> None:
    """Import torchvision; where its operators are missing, define their signatures and import it again.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: its import fails for another reason.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _define_missing()
        import torchvision  # noqa: F401


def is_active() -> bool:
    """True if this module has defined operators of torchvision."""
    return bool(_defined)


def _define_missing() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}{_SIGNATURE}")
    _defined.append(library)
