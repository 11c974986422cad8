"""All findings, in the order in which they are shown."""

from stream.survey.findings.accuracy import ACCURACY
from stream.survey.findings.background import BACKGROUND, BACKGROUND_ORDER
from stream.survey.findings.base import Finding
from stream.survey.findings.crispness import CRISPNESS
from stream.survey.findings.deep import DEEP, DEEP_LEVELS
from stream.survey.findings.leak import LEAK
from stream.survey.findings.sky import SKY
from stream.survey.findings.small import SMALL
from stream.survey.findings.thin import THIN

FINDINGS: tuple[Finding, ...] = (
    ACCURACY,
    THIN,
    LEAK,
    BACKGROUND,
    BACKGROUND_ORDER,
    CRISPNESS,
    DEEP,
    DEEP_LEVELS,
    SKY,
    SMALL,
)
