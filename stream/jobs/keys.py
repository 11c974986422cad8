"""Which options a job takes, where these are not all, and a note that commands know: before anything heavy is loaded.

Invariant: this module imports nothing.
"""

RENDER_KEYS = (
    "source",
    "capture.max_frames",
    "capture.max_pixels",
    "render.layout",
    "render.colormap",
    "render.range",
    "render.alpha",
    "output.path",
    "output.save",
    "output.png16_unit",
    "output.fov",
    "output.every",
    "output.picture",
    "output.codec",
    "output.crf",
    "output.preset",
    "output.audio",
    "output.report",
    "output.overwrite",
    "output.preview",
    "output.quiet",
)
"""What can be chosen where a depth video takes the place of the model."""

NOT_OF_THE_RESULT = frozenset(
    {
        "model.weights_dir",
        "model.offline",
        "model.commercial_only",
        "capture.hwaccel",
        "capture.max_memory",
        "capture.sandbox",
        "inference.threads",
        "inference.batch",
        "output.path",
        "output.report",
        "output.overwrite",
        "output.quiet",
        "output.preview",
        "output.resume",
    }
)
"""Options that decide where and how fast a result is made, not what it is."""

NOT_OF_A_BATCH = frozenset(
    {
        "capture.live",
        "capture.camera_size",
        "capture.camera_fps",
        "capture.camera_fourcc",
        "capture.reconnect_for_s",
        "inference.target_fps",
        "output.report",
        "output.resume",
        "output.preview",
        "output.serve",
        "output.serve_token",
        "output.serve_cert",
        "output.serve_key",
        "output.serve_name",
        "output.virtual_camera",
        "output.virtual_camera_device",
        "output.rerun",
    }
)
"""Options that make no sense for many sources: those of live sources, of what shows one run, and
`--resume`, which a batch does by itself."""

TO_GO_ON = "to go on: run it again with --resume"
"""Noted when a run ends early that can be resumed; commands say how exactly."""

MODEL_SECTION, SOURCE_SECTION = "model.", "capture."
_OF_A_LOADED_MODEL = frozenset(
    {
        "inference.device",
        "inference.precision",
        "inference.backend",
        "inference.provider",
        "inference.batch",
        "inference.refine",
        "inference.threads",
        "output.fov",
    }
)


def is_of_model(key: str) -> bool:
    """True for what is fixed when a model is loaded, and so cannot be chosen for a single run of it."""
    return key.startswith(MODEL_SECTION) or key in _OF_A_LOADED_MODEL


def is_of_source(key: str) -> bool:
    """True for what is fixed when a source is opened."""
    return key.startswith(SOURCE_SECTION)
