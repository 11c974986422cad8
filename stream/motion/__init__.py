"""Change between the images of a video: where it is cut, how its content moves, and how steady depth is along that."""
