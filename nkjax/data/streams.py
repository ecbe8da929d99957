"""Endless batches for training and finite ones for evaluation, in one order on any machine.

All processes see one global order of samples; each makes its own slice of every global batch. The
position in a stream is step x global batch, so that a run resumes from its step alone, on any
number of processes and threads.
"""

import dataclasses
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
from absl import logging

from nkjax.data import samples
from nkjax.data.samples import Look

# Of so many rows at least is a share of failures taken, so that one early failure stops nothing.
FEWEST_FOR_A_SHARE = 1000


class TooManyFailures(RuntimeError):
    """More rows than allowed could not be read; the message names the share and the last row."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """People (`records.Rows`) or hands (`samples.Hands`), how to look at them, batch over all."""

    rows: Sequence
    look: Look
    batch: int


def stream_seed(seed: int, name: str) -> int:
    """Return the seed of one stream of a run, below 2^31: two streams never draw in step.

    For the host's order and views; use it for `views.sample_keys` on the device too.
    """
    mixed = np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)
    return int(mixed[0] >> 1)


def endless(
    streams: Mapping[str, Stream],
    *,
    seed: int,
    start_step: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 16,
    max_failed: float = 0.001,
) -> Iterator[dict]:
    """Yield {name: batch} for ever from a step on: a batch of each stream, so their ratio is exact.

    seed: of the order and of every view, with the stream's name (`stream_seed`). Each stream is
    shuffled anew every time it has been through; batches go across the border. A batch is
    `samples.sample` with a leading axis of batch / processes: this process's every `processes`-th
    row of the global batch; 'who' holds arrays of text for the host. max_failed: the share of rows
    that may fail (valid is then false) before TooManyFailures is raised.

    Raises ValueError for a batch that the processes cannot share, a stream without rows, a look
    without views.
    """
    parts = []
    for name, stream in streams.items():
        of_stream = stream_seed(seed, name)
        order = _in_random_order(stream, of_stream)
        parts.append(_batches(order, stream, of_stream, start_step, process, processes, threads))
    return _watched(tuple(streams), parts, max_failed)


def finite(
    stream: Stream, *, seed: int = 0, process: int = 0, processes: int = 1, threads: int = 16
) -> Iterator[dict]:
    """Return the rows once and in order, as many batches on every process.

    The last batch is filled with rows that are not valid. Otherwise as `endless`; failed rows are
    not valid either, and their 'failure' says why.
    """
    steps = -(-len(stream.rows) // stream.batch)
    positions = grain.MapDataset.range(steps * stream.batch)
    return iter(_batches(positions, stream, seed, 0, process, processes, threads))


def _in_random_order(stream: Stream, seed: int):
    if not len(stream.rows):
        raise ValueError("a stream without rows; is the split empty?")
    return grain.MapDataset.range(len(stream.rows)).seed(seed).shuffle().repeat()


def _batches(positions, stream: Stream, seed, start_step, process, processes, threads):
    if stream.batch % processes:
        raise ValueError(f"a batch of {stream.batch} for {processes} processes; want a multiple")
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes}; they count from 0")
    if not stream.look.views:
        raise ValueError("a look without views; name at least one")
    look, manifest = stream.look, stream.rows.manifest
    skeleton, postures = manifest.skeleton, tuple(manifest.content["postures"])
    # What is known of a row that cannot be read: its sample has labels like the others.
    unread = {key: manifest.content[key] for key in ("task",) if key in manifest.content}
    pool, memory = ThreadPoolExecutor(threads, "pictures"), _Memory()

    def load(index, number, canvases):
        row = unread
        try:
            if number >= len(stream.rows):
                return samples.blank(row, index, look, skeleton, canvases)
            row = stream.rows[number]
            return samples.sample(row, index, seed, look, skeleton, postures, canvases)
        # BadImage and BadData among them; array_record raises these for damaged shards.
        except (ValueError, RuntimeError, OSError) as error:
            failure = " ".join(f"row {number}: {error}".split())[:300]
            return samples.blank(row, index, look, skeleton, canvases, failure)

    def load_batch(numbered):
        # Crops are warped into their places in the batch: nothing this large is copied again.
        shape = (len(numbered), look.size_wh[1], look.size_wh[0], 3)
        images = [memory.take(shape) for _ in look.views]
        canvases = zip(*images, strict=True)
        batch = _stack(list(pool.map(load, *np.transpose(numbered).tolist(), canvases)))
        for (name, _), pixels in zip(look.views, images, strict=True):
            batch["views"][name]["image"] = pixels
        return batch

    mine = positions.map_with_index(lambda index, number: np.array((index, number)))
    mine = mine[start_step * stream.batch + process :: processes]
    batches = mine.batch(stream.batch // processes, drop_remainder=True).map(load_batch)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))


class _Memory:
    """Pixels of batches that nobody holds any more are used again.

    Fresh pages of a batch cost up to a fifth of the work that fills them.
    """

    def __init__(self):
        self._blocks, self._lock = [], threading.Lock()

    def take(self, shape):
        """Return uint8 memory that no array but the result refers to."""
        with self._lock:
            for block, references in zip(self._blocks, _references(self._blocks), strict=True):
                if block.shape == shape and references == UNUSED:
                    return block[:]
            self._blocks.append(np.empty(shape, np.uint8))
            return self._blocks[-1][:]


def _references(arrays):
    """Count the references to each array; every view of it is one more."""
    return [sys.getrefcount(array) for array in arrays]


# How many the counting itself makes differs between versions of Python.
(UNUSED,) = _references([np.empty(0)])


def _stack(rows):
    first = rows[0]
    if isinstance(first, dict):
        return {key: _stack([row[key] for row in rows]) for key in first if key != "image"}
    return np.stack(rows) if isinstance(first, np.ndarray | np.generic) else np.array(rows)


def _watched(names, parts, max_failed):
    iterators = [iter(part) for part in parts]
    seen = failed = 0
    try:
        for batches in zip(*iterators, strict=True):
            for name, batch in zip(names, batches, strict=True):
                seen += len(batch["valid"])
                for failure in filter(None, batch["who"]["failure"]):
                    failed += 1
                    logging.warning("%s: %s", name, failure)
                    if failed > max_failed * max(seen, FEWEST_FOR_A_SHARE):
                        raise TooManyFailures(
                            f"{failed} of {seen} rows could not be read, above the {max_failed:.2%}"
                            f" allowed; the last: {name}: {failure}"
                        )
            yield dict(zip(names, batches, strict=True))
    finally:
        for iterator in iterators:
            iterator.close()
