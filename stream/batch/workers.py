"""The config of each worker of a batch, and which options suit many sources.

Invariant: an option is refused by name, never ignored.
"""

import os
import sys
from pathlib import Path
from typing import Any

from stream.config import LEAST_MEMORY, Config, defaults
from stream.errors import ConfigError, OutputError, UsageError
from stream.jobs.keys import NOT_OF_A_BATCH
from stream.jobs.options import OPTIONS
from stream.machine import memory_budget_bytes, usable_cores
from stream.remote.urls import is_remote, parse


def checked_folder(config: Config) -> Path | str:
    """The output folder of a batch, or its URL.

    Raises:
        UsageError: none is given, or it is no folder.
    """
    out = config.output.path
    if out is None:
        raise ConfigError("no OUT given", where="-o", hint="name the folder of the results")
    if isinstance(out, str) and is_remote(out):
        place = parse(out)
        return place.with_path(place.path.rstrip("/")).rstrip("/")
    if not isinstance(out, Path):
        raise ConfigError("is no folder", where=f"-o {out}", hint="name the folder of the results")
    if os.path.lexists(out) and not out.is_dir():
        raise OutputError("is a file, not a folder", where=str(out), hint="choose another with -o")
    return out


def check_options(config: Config) -> None:
    """Refuse what does not suit many sources.

    Raises:
        UsageError: one of the options, by name.
    """
    for option in OPTIONS.values():
        section, _, name = option.key.partition(".")
        is_set = getattr(getattr(config, section), name) != getattr(getattr(defaults(), section), name)
        if option.key in NOT_OF_A_BATCH and is_set and (option.key, config.output.preview) != ("output.preview", "off"):
            raise UsageError("does not go with many sources", where=option.flag, hint="use `depthstream run` for it")
    if config.model.also:
        raise UsageError("a batch has one model", where="-m", hint="run it once for each, with an OUT for each")
    if config.output.picture == "none" and not config.output.save:
        hint = "add --save npy, or choose png, jpg or webp"
        raise ConfigError("nothing would be written", where="--picture none", hint=hint)


def worker_configs(config: Config, jobs: int | None) -> list[Config]:
    """A config for each process, all alike: cores and memory are divided."""
    gpus = gpu_count() if config.inference.device in ("auto", "cuda") else 0
    count = jobs or gpus or 1
    cores, update = usable_cores(), dict[str, Any]()
    if count > 1 and not gpus and config.inference.threads is None and not config.inference.device.startswith("cuda"):
        update["threads"] = max(1, cores // count)
    capture = config.capture
    if count > 1:
        share = max(LEAST_MEMORY, memory_budget_bytes(capture.max_memory) // count)
        capture = capture.model_copy(update={"max_memory": share})
    inference = config.inference.model_copy(update=update)
    return [config.model_copy(update={"inference": inference, "capture": capture})] * count


def gpu_of_each(config: Config, count: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each of `count` processes: the GPUs in turn. Empty: they share what there is.

    The config stays the same for all, because the device is one of the settings that must be equal.
    """
    gpus = gpu_count() if config.inference.device in ("auto", "cuda") else 0
    if gpus < 2:
        return []
    known = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = known.split(",") if known else [str(number) for number in range(gpus)]
    return [names[number % gpus] for number in range(count)]


def gpu_count() -> int:
    """CUDA devices of this machine. torch, which takes seconds, is asked only where there is a driver."""
    drivers = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not (
        sys.platform == "win32" or any(map(os.path.exists, drivers))
    ):
        return 0
    from stream.infer.device import cuda_devices

    return cuda_devices()
