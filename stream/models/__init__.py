"""The networks, and their weights.

Invariant: the libraries that run networks send nothing and leave no identifier. Whatever imports one of them imports
this package first.
"""

from stream.models.telemetry import switch_off

switch_off()
