"""Sapiens checkpoint files to orbax weights folders, once: `python -m convert_weights`."""
