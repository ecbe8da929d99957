"""How a command ends: 0, or one line on stderr for what went wrong and the exit code it has."""

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType


def run(
    work: Callable[[], None],
    bad_input: tuple[type[Exception], ...],
    if_stopped: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Do the work of a command; returns 0, 1 where it failed while running, 2 for bad input.

    bad_input: the errors that say, in one line, which input is no good; if_stopped: what holds
    after Ctrl-C; renamed: options that these errors name otherwise than the command does.
    """
    try:
        work()
    except bad_input as error:
        words = " ".join(str(error).split())
        for name, own in renamed.items():
            words = words.replace(name, own)
        print(f"error: {words}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {if_stopped}", file=sys.stderr)
        return 1
    return 0
