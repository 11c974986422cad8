"""A survey of one clip: what is measured from frame to frame, and which frames are looked at like photos."""
