"""Measuring speed, reproducibly and in one process: `depthstream bench`.

    timing      medians and their spread
    stand_in    networks with made-up weights, where the real ones are not here
    clip        the video that is measured with
    bare        the model alone: size × batch × precision × backend
    whole       the pipeline on a video, its parts, and the limit they set
    plain       a loop that does what the models' own video scripts do
    show        table, JSON, plot

Invariant: what is compared is measured in the same process, on the same frames, with the same threads.
"""
