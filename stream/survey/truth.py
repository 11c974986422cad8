"""The depth that a user has measured: `--truth DIR`, a file for each photo."""

import numpy as np

from stream.capture.stills.depthfolder import DepthFolder
from stream.frames import Frame, SourceInfo
from stream.survey.scene import Truth
from stream.survey.sink import TruthOf


class TruthFolder(DepthFolder):
    """A folder with the depth of photos, as what is known of them."""

    def truth_of(self, info: SourceInfo) -> TruthOf:
        """See `DepthFolder.of`."""
        depth_of = self.of(info)

        def truth_of(frame: Frame) -> Truth | None:
            depth = depth_of(frame)
            return None if depth is None else Truth(disparity=np.float32(1) / depth)

        return truth_of
