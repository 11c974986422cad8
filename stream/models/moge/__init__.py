"""MoGe-2: metric depth with a mask and the field of view, from a point map that a network estimates.

Wang et al. 2025, arXiv:2507.02546; https://github.com/microsoft/MoGe.
"""
