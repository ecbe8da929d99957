"""Types of command-line options: what a number may be, and one line where it is not."""

import argparse
import math


def positive(text: str) -> int:
    """Read a whole number from 1 to 99999."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 6 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 99999")
    return int(text)


def not_negative(text: str) -> int:
    """Read a whole number from 0 on, of at most 18 digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def share(text: str) -> float:
    """Read a share, from 0 to 1."""
    value = finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def finite(text: str) -> float:
    """Read a number that is neither NaN nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def new_folder(text: str) -> str:
    """Read the path of a folder to make: one that can be printed as a word of a command line."""
    if text.splitlines() != [text]:
        raise argparse.ArgumentTypeError(f"{text!r} is empty or has a line break")
    if text.startswith("-"):
        raise argparse.ArgumentTypeError(f"{text!r} reads like an option; write ./{text}")
    return text
