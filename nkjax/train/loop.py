"""The run: restore or begin, iterate, log, look at the validation split, save, stop."""

import contextlib
import sys
from collections.abc import Callable, Sequence

import jax
from etils import epath

from nkjax import config as configs
from nkjax import journal, mesh, provenance, runs, sharding, snapshots
from nkjax.config import BadConfig, Config
from nkjax.journal import Clock, Journal
from nkjax.snapshots import NotFinite, Snapshots
from nkjax.train import begin, job
from nkjax.train.begin import Start

# What may differ between the sessions of one run: where and how fast it computes, not what; and
# where the data lies, as its hash is compared.
MAY_CHANGE = (
    "mesh.data", "mesh.fsdp", "threads", "keep", "profile", "log_every", "max_failed", "remat",
    "evaluation.batch", "optimizer.accumulate", "data",
)  # fmt: skip


class Diverged(RuntimeError):
    """Too many steps in a row were not finite; the last good state is kept on disk."""


def say(line: str) -> None:
    """Print a line of progress to stderr, from the first process alone."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def train(
    config: Config,
    workdir: str,
    command: Sequence[str] = (),
    preempted: Callable[[int], bool] = mesh.preempted,
) -> int:
    """Train to the end, or until preempted, in a new or a started run folder; returns the step.

    command: words of the command line, for run.json; preempted: asked after every step whether to
    save and stop. Raises BadConfig, BadStart and the errors of data and weights before anything is
    written, Diverged, streams.TooManyFailures, and OSError where a state cannot be written.
    """
    clock, folder = Clock(), _open(workdir)
    with clock.account("init"):
        sizes = configs.check_devices(config, jax.device_count(), jax.process_count())
        saved = _check_same(config, folder)
        start = begin.begin(config)
        if saved is not None and saved.get("data_sha256") != start.data_sha256:
            raise BadConfig(
                f"{config.data} is not the data that {workdir} was started with: give back that "
                "data, or name a new --workdir"
            )
        devices = mesh.make_mesh(*sizes)
        snapshots = Snapshots(
            folder,
            keep=config.keep,
            best=config.evaluation.best,
            higher_is_better=runs.is_higher_better(config.evaluation.best),
        )
        latest = snapshots.latest()
        if latest is not None and latest >= config.steps:
            say(f"{workdir}: finished already, at step {latest:,}")
            return latest
        if jax.process_index() == 0:
            runs.check_writable(folder)
    with clock.account("compile"):
        say(f"compiling for a mesh of {sizes[0]} x {sizes[1]} (data x fsdp)")
        if saved is None:
            _say_settings(config)
        programs = job.compile_job(start, config, devices)
        snapshots.prepare(programs.abstract)
    try:
        with jax.set_mesh(devices):
            if latest is None:
                with clock.account("init"):
                    state = programs.first(begin.first_params(start, config, devices))
            else:
                with clock.account("restore"):
                    state, facts = snapshots.restore(latest, programs.abstract)
                    clock = _continued(clock, facts["seconds"])
            if jax.process_index() == 0:
                _write_documents(folder, config, start, command, latest, saved)
            run = _Run(config, start, programs, snapshots, folder, clock, preempted)
            step = run.go(state, latest or 0)
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what is told
            snapshots.close(alone=True)
        raise
    snapshots.close()
    return step


class _Run:
    """The running of a run: what stays the same from step to step."""

    def __init__(self, config, start, programs, snapshots, folder, clock, preempted):
        self.config, self.start, self.programs = config, start, programs
        self.snapshots, self.clock, self.preempted = snapshots, clock, preempted
        self.folder = folder
        self.marked = None  # (step, clock's totals) at the last line of metrics
        self.tracing = False

    def go(self, state, first: int) -> int:
        config, clock = self.config, self.clock
        self.journal = Journal(self.folder, first, writes=jax.process_index() == 0)
        batches = job.training_batches(self.start, config, first)
        say(f"training from step {first:,} to {config.steps:,}")
        self.marked = (first, clock.totals())
        late = None
        try:
            if first % config.evaluation.every == 0 and first and not self._looked_at(first):
                self._look(first, state)  # a run told to stop had no time for it
            with jax.transfer_guard("disallow"):
                for step in range(first + 1, config.steps + 1):
                    with clock.account("data"):
                        batch = sharding.share(next(batches), self.programs.mesh)
                    with clock.account("step"), self._profiled(step):
                        state, metrics = self.programs.step(state, batch)
                        # Numbers of the step before: the device never waits for the host.
                        if late:
                            self._note(*late)
                    late = (step, metrics)
                    stop = self.preempted(step)
                    # Who is told to stop may have no time for a look.
                    due = step % config.evaluation.every == 0 and not stop
                    looks = due or step == config.steps
                    if looks or stop or step % config.save_every == 0:
                        with clock.account("step"):  # the wait for its numbers
                            self._note(*late)
                        late = None
                        # A state that was looked at is kept, so that the best one is.
                        found = self._look(step, state) if looks else {}
                        self._save(step, state, found)
                    if stop and step < config.steps:
                        say(f"asked to stop: saved step {step:,}; the same command goes on")
                        break
            with clock.account("save"):
                self.snapshots.wait()
            return step
        finally:
            self._stop_tracing()
            batches.close()
            self.journal.close()

    def _note(self, step, metrics):
        """Write the numbers of a step where they are due, and stop a run that has diverged."""
        numbers = {name: float(x) for name, x in jax.device_get(metrics).items()}
        in_a_row = numbers.pop("train/skipped_in_a_row")
        if in_a_row >= self.config.abort_after:
            self.snapshots.wait()
            last = self.snapshots.latest()
            raise Diverged(
                f"{in_a_row:.0f} steps in a row to step {step} had a loss or gradient that is not "
                "finite, and were skipped; lower the learning rate or look at the data. "
                + (f"The last good state is step {last}" if last else "No state was saved yet")
            )
        if in_a_row:
            say(f"step {step:,} skipped: its loss or gradient is not finite")
        if step % self.config.log_every == 0:
            self.journal.write(step, numbers | self._speed(step, numbers))

    def _speed(self, step, numbers):
        then, before = self.marked
        now = self.clock.totals()
        self.marked = (step, now)
        data, compute = (now[name] - before[name] for name in ("data", "step"))
        seconds = max(data + compute, 1e-9)
        waited = data / seconds
        per_second = (step - then) * self.config.batch / seconds
        left = (self.config.steps - step) * seconds / (step - then)
        say(journal.progress(
            step, self.config.steps, numbers["train/loss"], per_second, waited, left
        ))  # fmt: skip
        return {"time/images_per_s": per_second, "time/data_share": waited}

    def _looked_at(self, step):
        return bool(snapshots.read_facts(self.folder, step)["metrics"])

    def _look(self, step, state):
        rows, most = len(self.start.val), self.config.max_failed
        try:
            with self.clock.account("eval"):
                found, unread = self.programs.look(state.ema, self.start.val)
        except Exception:
            if jax.process_count() == 1:  # else the others may be waiting elsewhere
                self._save(step, state, {})
            raise
        if unread:
            say(f"step {step:,}  {unread} of {rows} people of val could not be read")
            found["unread"] = unread
        if unread > most * rows:
            say(f"step {step:,}  no figures: more than max_failed, {most:.2%}, were not read")
            return {}
        self.journal.write(step, {f"val/{name}": value for name, value in found.items()})
        best = self.config.evaluation.best
        if best in found:
            say(f"step {step:,}  val/{best} {found[best]:.4g}")
        return found

    def _save(self, step, state, found):
        with self.clock.account("save"):
            facts = {"seconds": self.clock.totals()}
            try:
                self.snapshots.save(step, state, facts, found)
            except NotFinite as error:  # a finite gradient, but a rate that leaves no number
                raise Diverged(f"{error}; lower the learning rate") from None

    def _profiled(self, step):
        first, count = self.config.profile
        if count and step == first + 1 and jax.process_index() == 0:
            jax.profiler.start_trace(str(self.folder / "profile"))
            self.tracing = True
        elif step == first + count + 1:
            self._stop_tracing()
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def _stop_tracing(self):
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()
            say(f"profile: {self.folder}/profile")


def _open(workdir: str):
    try:
        folder = epath.Path(workdir).expanduser()
        folder.exists()
    except (KeyError, ImportError, OSError) as error:  # of paths that epath cannot reach
        raise BadConfig(
            f"--workdir={workdir}: cannot be reached ({error}); name a folder, or a bucket whose "
            "file system is installed (gs:// wants the package gcsfs)"
        ) from None
    return folder


def _say_settings(config: Config) -> None:
    ours, usual = (configs.to_json(each) for each in (config, Config()))
    for key in ours:
        if isinstance(ours[key], dict):
            changed = {k: v for k, v in ours[key].items() if v != usual[key][k]}
            words = " ".join(f"{k}={v}" for k, v in changed.items())
        else:
            words = str(ours[key]) * (ours[key] != usual[key])
        if words:
            say(f"  {key}: {words}")


def _continued(clock: Clock, earlier: dict) -> Clock:
    so_far = clock.totals()
    return Clock({name: seconds + so_far.get(name, 0.0) for name, seconds in earlier.items()})


def _check_same(config: Config, folder) -> dict | None:
    """Return run.json of a run that was started here, None for a new folder.

    Raises BadConfig where the run was started with settings that make another run, BadCheckpoint
    where the folder does not say, or is damaged.
    """
    started = runs.read_started(folder)
    if started is None:
        return None
    plain, document = started
    before, now = _by_path(plain), _by_path(configs.to_json(config))
    changed = [
        f"{key} was {before.get(key)!r} and is {now[key]!r}"
        for key in now
        if key not in MAY_CHANGE and before.get(key) != now[key]
    ]
    if changed:
        raise BadConfig(
            f"{folder} was started with another config ({'; '.join(changed[:3])}): go on with the "
            "same one, or name a new --workdir"
        )
    return document


def _by_path(plain: dict) -> dict:
    """Return settings as {'optimizer.clip': 1.0}."""
    flat = {}
    for key, value in plain.items():
        inside = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): leaf for name, leaf in inside.items()}
    return flat


def _write_documents(folder, config: Config, start: Start, command, latest, saved) -> None:
    plain = configs.to_json(config)
    if saved is not None:
        document = provenance.resumed(saved, command, latest or 0)
    else:
        parents = [start.parent] if start.parent else []
        document = provenance.record(command, plain, start.data_sha256, start.weights, parents)
    journal.write_once(folder / "run.json", document)
    journal.write_once(folder / "model.json", runs.model_document(start.spec, start.weights))
    journal.write_once(folder / "config.json", plain)
