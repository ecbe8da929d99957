"""What a run writes down while it trains: curves, time accounts, lines of progress, JSON files."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from absl import logging
from etils import epath

ACCOUNTS = ("init", "compile", "restore", "data", "step", "eval", "save", "other")
_FLUSH_SECONDS = 30  # so far may the curves in TensorBoard be behind


class Journal:
    """A run's curves: metrics.jsonl and TensorBoard event files, written by process 0 alone.

    folder: of the run, there or not; step: where the run starts, 0 or the step that was restored:
    lines of later steps were written by a process that was killed before it could save that far,
    so they go, as does a last line cut short, and at 0 all of them. writes: False on all processes
    but the first; then nothing happens. On a bucket (gs://...) nothing can be appended, so there
    metrics.jsonl is written whole for every line (log at long intervals), and TensorBoard not.

    Two equal runs write equal lines, save for keys that start with 'time/'. Only metrics.jsonl may
    be counted on: the last half minute of TensorBoard's files is lost when the process is killed.
    """

    def __init__(self, folder, step: int, writes: bool):
        self._writes = writes
        if not writes:
            return
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._lines = _lines_until(self._path, step)
        _replace(self._path, "".join(self._lines))
        self._bucket = _is_bucket(folder)
        if self._bucket:
            logging.info("%s is a bucket: curves in metrics.jsonl only, no TensorBoard", folder)
            return
        self._lines = []  # the file has them
        self._file = open(self._path, "a", encoding="utf-8")
        self._board = _event_writer(folder / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one line, {"step": 10, "train/loss": 0.5}: keys sorted, floats that read back equal.

        Values are numbers on the host, not device arrays. A value that is not finite is written as
        the string 'nan', 'inf' or '-inf', which JSON has no number for and float() reads.
        """
        if not self._writes:
            return
        numbers = {name: float(value) for name, value in values.items()}
        self._add(json.dumps(_plain(numbers) | {"step": int(step)}, sort_keys=True) + "\n")
        if not self._bucket:
            for name, number in numbers.items():
                self._board.add_scalar(name, number, step)

    def _add(self, line: str) -> None:
        if self._bucket:
            self._lines.append(line)
            self._path.write_text("".join(self._lines))
        else:
            self._file.write(line)
            self._file.flush()  # a line written is there after kill -9

    def close(self) -> None:
        """Write out what is waiting; the journal is not used after that."""
        if self._writes and not self._bucket:
            self._file.close()
            self._board.close()


def _plain(numbers: dict[str, float]) -> dict[str, float | str]:
    return {name: n if math.isfinite(n) else str(n) for name, n in numbers.items()}


def _lines_until(path: epath.Path, step: int) -> list[str]:
    """Return the whole lines of steps up to `step`, none at step 0, each with its line end."""
    if step == 0 or not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    kept = [line.decode() + "\n" for line in lines if _is_of(line, step)]
    if len(kept) < len(lines):
        logging.info("%s: dropped %d lines after step %d", path, len(lines) - len(kept), step)
    return kept


def _is_of(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):  # cut by a kill
        return False


def _event_writer(folder, step: int):
    # Here, not above: it takes a second, loads torch where that is installed, and only one process
    # writes.
    from tensorboardX import SummaryWriter

    return SummaryWriter(
        os.fspath(folder),
        purge_step=step + 1 if step else 0,  # hides this step and later ones of earlier files
        flush_secs=_FLUSH_SECONDS,
        filename_suffix=f".{step}",  # or sessions of one second would overwrite each other
    )


class Clock:
    """Time accounts of a run: where its wall time went, in seconds, summed over its sessions.

    earlier: `totals()` as it was saved with the state that this run resumes from. Time in no
    account is 'other'. For the thread that trains; what others do meanwhile costs nothing.
    """

    def __init__(self, earlier: Mapping[str, float] = MappingProxyType({})):
        self._seconds = dict.fromkeys(ACCOUNTS, 0.0) | dict(earlier)
        self._open = ["other"]
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Book the time of a with block on an account; the one around it pauses meanwhile.

        Raises KeyError for a name that is not in ACCOUNTS.
        """
        if name not in ACCOUNTS:
            raise KeyError(f"no account {name!r}; there are {', '.join(ACCOUNTS)}")
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def totals(self) -> dict[str, float]:
        """Return the seconds of every account until now; they add up to the wall time."""
        self._book()
        return dict(self._seconds)

    def _book(self) -> None:
        now = time.perf_counter()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now


def progress(
    step: int, steps: int, loss: float, per_s: float, data_share: float, eta_s: float,
    unit: str = "images",
) -> str:  # fmt: skip
    """Return one line of progress; data_share: part of the time waiting for data, 0 to 1.

    per_s: units, images or poses, in a second.
    """
    return (
        f"step {step:,} of {steps:,}  loss {loss:.4g}  {per_s:,.1f} {unit}/s  "
        f"data {data_share:.0%}  {_duration(eta_s)} to go"
    )


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "? min"
    minutes = math.ceil(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def write_once(path, document: dict) -> None:
    """Write a JSON file in one go, in place of one that is there: never seen half written.

    Raises ValueError for what JSON cannot say, a NaN for instance, having written nothing.
    """
    _replace(epath.Path(path), json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_object(path, error: type[Exception], remedy: str) -> dict:
    """Read a JSON file that holds an object.

    Raises error, in one line that ends with the remedy, where there is no such file, or no object.
    """
    try:
        document = json.loads(epath.Path(path).read_text())
    except OSError as failed:
        reason = failed.strerror or type(failed).__name__
        raise error(f"{path}: cannot be opened ({reason}); {remedy}") from None
    except (ValueError, RecursionError) as failed:
        reason = " ".join(str(failed).split())[:200]
        raise error(f"{path}: not a JSON file ({reason}); {remedy}") from None
    if not isinstance(document, dict):
        raise error(f"{path}: not a JSON object; {remedy}")
    return document


def _replace(path: epath.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_bucket(path):
        path.write_text(text)  # an object appears whole or not at all
        return
    beside = os.fspath(path) + ".partial"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _is_bucket(path) -> bool:
    return "://" in os.fspath(path)
