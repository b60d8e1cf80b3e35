"""Flags and presets of the scripts."""
