"""Video-Depth-Anything: Depth Anything V2 with attention over time."""
