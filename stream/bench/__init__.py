"""Measures speed, reproducibly and in one process: `depthstream bench`.

    suite               from the options to all results
    network             the model alone: size × batch × precision × backend
    pipeline            the whole pipeline on a video, its parts, and the limit that they set
    baseline            a loop that does what the models' own video scripts do
    steadiness          how much depth changes from frame to frame
    quality             accuracy on photos with measured depth, and the speed on them
    latency             the age of what a viewer sees, read from a screen
    synthetic_weights   networks for models whose real weights are not installed
    load                what other programs take of the machine, and busy processes beside a measurement
    clip                the video that everything is measured with
    timing              medians and their spread
    report              table, JSON, plot

Invariant: results that are compared come from the same process, the same frames and the same number of threads.
"""

PARTS = ("network", "pipeline", "baseline", "steadiness")
"""What is measured unless something is asked for: values of `--parts`."""
QUALITY, LATENCY = "quality", "latency"
"""What `--quality` and `--latency` ask for."""
