"""Fuzzing: whatever a file, a server or a visitor sends, nothing but a `StreamError` in one line comes of it.

Each test changes valid inputs, and checks time and memory with each; CONTRIBUTING.md says how to run it longer.
"""
