"""Standard streams that may be closed, or whose reader may be gone, without a command failing."""

import contextlib
import os
import sys


class Patient:
    """A stream of text that does not mind a broken pipe, as in `simulate.py ... | head`."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write text, if anybody still reads it."""
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text)

    def flush(self) -> None:
        """Write what is still waiting, if anybody still reads it."""
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()


def prepare() -> None:
    """Let stdout and stderr take any character, be closed (None), and lose their readers."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")
        if not isinstance(stream, Patient):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Patient(stream))
