"""Run in a process of its own: an audit hook notes whatever Python does while files are opened.

`python -m tests.convert_weights.tripwire read FOLDER WARM_UP` opens each file of the folder with
the readers; `... control FOLDER` unpickles the payloads for real, so that the hook is seen to work.
Prints one JSON object per file.
"""

import contextlib
import json
import os
import pickle
import resource
import sys
import time
from pathlib import Path

from convert_weights.readers import open_checkpoint
from tests.convert_weights.crafting import pickled
from tests.convert_weights.hostile import MARKER
from tests.convert_weights.hostile_pickles import payloads

_QUIET = {"mmap.__new__", "os.fwalk", "sys._getframe"}
_events: list[str] | None = None


def _note(event: str, args: tuple) -> None:
    if _events is None or event in _QUIET:
        return
    reading = event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if not reading:
        _events.append(f"{event} {args[:1]!r:.80}")


def _watch(action) -> dict:
    global _events
    _events, start, said, kind = [], time.perf_counter(), None, None
    try:
        action()
    except Exception as problem:
        said, kind = str(problem), type(problem).__name__
    seconds, events, _events = time.perf_counter() - start, _events, None
    return {"said": said, "kind": kind, "seconds": seconds, "events": events}


def peak_mib() -> float:
    """Return the highest resident memory of this process so far (MiB)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _read(path: Path) -> None:
    for tensor in open_checkpoint(path).tensors.values():
        tensor.read()


def main(mode: str, folder: Path, *warm_up: str) -> None:
    for path in warm_up:
        _read(Path(path))
    # Should a bomb ever go off, it takes down this process and not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    sys.addaudithook(_note)
    if mode == "control":
        for key, value in payloads(folder / MARKER).items():
            # Names of Python 2 are translated up to protocol 2, dotted names work from 4 on.
            def unpickle(value=value):
                for protocol in (2, 4):
                    with contextlib.suppress(Exception):
                        pickle.loads(pickled(value, protocol))

            seen = _watch(unpickle)
            marker = folder / MARKER
            print(json.dumps({"file": key, "ran": marker.exists()} | seen))
            marker.unlink(missing_ok=True)
        return
    for path in sorted(folder.iterdir()):
        before = peak_mib()
        seen = _watch(lambda path=path: _read(path))
        print(json.dumps({"file": path.name, "grew_mib": peak_mib() - before} | seen))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
