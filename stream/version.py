"""The version, in one place: pyproject.toml reads it, and so does every module that needs it."""

__version__ = "0.1.0"
