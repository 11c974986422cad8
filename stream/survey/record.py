"""What a survey has found, as `survey.json` holds it: the one source of the page and the table, too.

Invariant: a reader of another version is told by `version`; every number is finite or null.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION: Literal[1] = 1
"""Of the layout of `survey.json`; a change that breaks readers raises it."""

BasisName = Literal["truth", "models", "picture"]
Better = Literal["higher", "lower", "neither"]
RESOLUTION = 1e-6
"""Differences below are ties: what is left of rounding in float32."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRow(_Record):
    """A model as it ran here."""

    name: str
    parameters_m: Finite = Field(description="millions of parameters")
    licence: str
    origin: str = Field(description="address of the authors' project")
    output: str = Field(description="relative_disparity, relative_depth or metric_depth")
    weights_sha256: str = Field(description="of the file that was used")
    is_published: bool | None = Field(description="whether that is the published file; null if its checksum is unknown")
    weights_file: str = Field(default="", description="name of a file of the user's own")
    device: str
    precision: str
    backend: str
    load_s: Finite
    first_s: Finite = Field(description="seconds for the first map")
    frames_per_s: Finite | None = Field(description="of the network alone, after the first map")
    memory_bytes: int = Field(description="growth of the process while it was loaded and computed its first map")


class FindingRow(_Record):
    """A finding and what it means."""

    key: str
    title: str
    question: str
    unit: str
    better: Better = Field(description="which numbers; neither for what says how models differ and not which is right")
    resolution: Finite = Field(default=RESOLUTION, description="numbers that differ by no more are alike")
    definition: str
    details: dict[str, str]


class PlaceRow(_Record):
    """A place in a photo."""

    box: tuple[Finite, Finite, Finite, Finite] = Field(description="left, top, width, height in shares of the photo")
    text: str


class NumberRow(_Record):
    """The answer for one model."""

    value: Finite | None
    details: dict[str, Finite] = {}
    places: list[PlaceRow] = []


class AnswersRow(_Record):
    """The answers of one photo to one finding."""

    basis: BasisName
    numbers: dict[str, NumberRow] = Field(description="by model")


class ScaleRow(_Record):
    """What the colours of a photo's pictures mean, in disparity: 1/m if it has a truth, else as the first model has it.

    Disparities beyond the ends take the colours of the ends.
    """

    low: Finite = Field(description="at the far end of the colormap")
    high: Finite = Field(description="at the near end")
    own: dict[str, tuple[Finite, Finite]] = Field(
        default={}, description="both ends for a model that no positive scale aligns, in the model's own unit"
    )
    difference: Finite = Field(description="at the bright end of the differences' colours; the dark end is 0")
    gaps: list[str] = Field(
        default=[], description="keys of the pictures with pixels without an answer, which are transparent"
    )


class PhotoRow(_Record):
    """A photo and what was found in it."""

    name: str
    size: tuple[int, int] = Field(description="height and width of the photo")
    has_truth: bool
    without_truth: str = Field(default="", description="why the truth that was given for it could not be used")
    pictures: dict[str, str] = Field(
        description="files beside the report: photo, truth, depth:MODEL and difference:MODEL|MODEL"
    )
    scale: ScaleRow | None = Field(default=None, description="of the colours of the pictures")
    findings: dict[str, AnswersRow] = Field(description="by finding")
    styles: dict[str, dict[str, NumberRow]] = Field(default={}, description="by style and model: how far depth moved")
    styled_pictures: dict[str, dict[str, str]] = Field(default={}, description="by style: as pictures")


class SummaryRow(_Record):
    """A finding over all photos, for one model."""

    mean: Finite | None
    spread: Finite | None = Field(description="standard deviation over the photos; null for fewer than two")
    photos: int = Field(
        description="that the mean is over: those that all models answer which answer any; if there is none, those "
        "that this model answers, and none is best"
    )
    is_best: bool
    basis: BasisName | None = Field(
        default=None, description="of the numbers: those with another basis are left out; null for styles"
    )


class CutRow(_Record):
    """A cut of a clip, and how much of the old scene is in the depth after it."""

    frame: int = Field(description="the first of the new scene")
    time_s: Finite
    leftover: dict[str, Finite | None] = Field(description="by model: share of the old scene in its depth, 0 to 1")
    late: dict[str, int | None] = Field(description="by model: frames after the cut of which half or more is of it")


class StripRow(_Record):
    """A frame of a clip that was measured like a photo."""

    name: str = Field(description="of its row in photos")
    frame: int
    time_s: Finite = Field(description="on the clock of the clip")
    why: list[Literal["even", "cut", "difference"]] = Field(
        description="it is one of some that are spread evenly, the first after a cut, or the models differ much there"
    )
    difference: Finite = Field(description="how far the models lie apart, in shares of the first one's range")


class ClipNumberRow(_Record):
    """A finding of a clip as a whole, for one model."""

    value: Finite | None = Field(description="the mean over what was measured")
    spread: Finite | None = Field(description="standard deviation over it; null where it is not known")
    measured: int = Field(description="pairs of frames, stretches or cuts that were measured")
    is_best: bool
    details: dict[str, Finite] = {}


class ClipRow(_Record):
    """A clip and what was found from frame to frame."""

    video: str = Field(description="file beside the report: the clip and each model's depth, side by side; or empty")
    frames: int
    start_s: Finite = Field(description="time of the first frame, on the clock of the clip")
    end_s: Finite = Field(description="time of the last frame")
    findings: list[FindingRow] = Field(description="of the clip as a whole")
    numbers: dict[str, dict[str, ClipNumberRow]] = Field(description="by finding and model")
    cut_count: int = Field(description="cuts found in the picture")
    cuts: list[CutRow] = Field(description="the first hundred that could be measured")
    strip: list[StripRow] = Field(description="the frames in photos, in the same order")
    notes: list[str] = Field(default=[], description="what a reader must know")


class SkippedRow(_Record):
    """A photo that could not be surveyed."""

    name: str
    reason: str


class Survey(_Record):
    """All of it."""

    version: Literal[1] = VERSION
    program: str = Field(description="depthstream and its version")
    source: str
    colormap: str = Field(default="inferno", description="of the depth in the pictures")
    is_complete: bool = Field(description="false if the survey was interrupted or failed: what is here was finished")
    stopped_by: str = Field(default="", description="why it is not complete")
    models: list[ModelRow]
    findings: list[FindingRow]
    photos: list[PhotoRow]
    skipped: list[SkippedRow]
    summary: dict[str, dict[str, SummaryRow]] = Field(description="by finding and model")
    style_sheets: dict[str, list[str]] = Field(default={}, description="by style: contact sheets beside the report")
    style_summary: dict[str, dict[str, SummaryRow]] = Field(default={}, description="by style and model")
    video: ClipRow | None = Field(default=None, description="of a clip: photos are some of its frames")
