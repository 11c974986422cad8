"""Depth as data in files: how values become codes, and what is written beside them."""
