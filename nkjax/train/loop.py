"""The run: restore or begin, iterate, log, look at the validation split, save, stop."""

import contextlib
import sys
from collections.abc import Callable, Sequence

import jax

from nkjax import config as configs
from nkjax import journal, mesh, provenance, runs, sharding, snapshots
from nkjax.config import BadConfig, Config
from nkjax.journal import Clock, Journal
from nkjax.prior_config import PriorConfig
from nkjax.snapshots import NotFinite, Snapshots
from nkjax.train.work import Work


class Diverged(RuntimeError):
    """Too many steps in a row were not finite; the last good state is kept on disk."""


def say(line: str) -> None:
    """Print a line of progress to stderr, from the first process alone."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


def train(
    work: Work,
    config: Config | PriorConfig,
    workdir: str,
    command: Sequence[str] = (),
    preempted: Callable[[int], bool] = mesh.preempted,
) -> int:
    """Train to the end, or until preempted, in a new or a started run folder; returns the step.

    work: what the kind of run has of its own; command: words of the command line, for run.json;
    preempted: asked after every step whether to save and stop. Raises BadConfig, BadStart and the
    errors of data and weights before anything is written, Diverged, streams.TooManyFailures, and
    OSError where a state cannot be written.
    """
    clock, folder = Clock(), runs.open_folder(workdir)
    with clock.account("init"):
        sizes = configs.check_devices(config, jax.device_count(), jax.process_count())
        saved = runs.check_same(folder, configs.to_json(config), work.check_model)
        start = work.begin(config)
        if saved is not None and saved.get("data_sha256") != start.data_sha256:
            raise BadConfig(
                f"{config.data} is not the data that {workdir} was started with: give back that "
                "data, or name a new --workdir"
            )
        devices = mesh.make_mesh(*sizes)
        snapshots = Snapshots(
            folder,
            keep=config.keep,
            best=work.best(config),
            higher_is_better=runs.is_higher_better(work.best(config)),
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
        programs = work.compile(start, config, devices)
        snapshots.prepare(programs.abstract)
    try:
        with jax.set_mesh(devices):
            if latest is None:
                with clock.account("init"):
                    state = programs.first(work.first_params(start, config, devices))
            else:
                with clock.account("restore"):
                    state, facts = snapshots.restore(latest, programs.abstract)
                    clock = _continued(clock, facts["seconds"])
            if jax.process_index() == 0:
                _write_documents(work, folder, config, start, command, latest, saved)
            run = _Run(work, config, start, programs, snapshots, folder, clock, preempted)
            step = run.go(state, latest or 0)
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what is told
            snapshots.close(alone=True)
        raise
    snapshots.close()
    return step


class _Run:
    """The running of a run: what stays the same from step to step."""

    def __init__(self, work, config, start, programs, snapshots, folder, clock, preempted):
        self.work, self.config, self.start, self.programs = work, config, start, programs
        self.snapshots, self.clock, self.preempted = snapshots, clock, preempted
        self.folder = folder
        self.marked = None  # (step, clock's totals) at the last line of metrics
        self.tracing = False

    def go(self, state, first: int) -> int:
        config, clock = self.config, self.clock
        self.journal = Journal(self.folder, first, writes=jax.process_index() == 0)
        batches = self.work.batches(self.start, config, first)
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
            step, self.config.steps, numbers["train/loss"], per_second, waited, left,
            self.work.unit,
        ))  # fmt: skip
        return {f"time/{self.work.unit}_per_s": per_second, "time/data_share": waited}

    def _looked_at(self, step):
        return bool(snapshots.read_facts(self.folder, step)["metrics"])

    def _look(self, step, state):
        try:
            with self.clock.account("eval"):
                found, unread = self.programs.look(state.ema, self.start.val)
        except Exception:
            if jax.process_count() == 1:  # else the others may be waiting elsewhere
                self._save(step, state, {})
            raise
        if unread:
            rows, most = len(self.start.val), self.config.max_failed
            say(f"step {step:,}  {unread} of {rows} people of val could not be read")
            found["unread"] = unread
            if unread > most * rows:
                say(f"step {step:,}  no figures: more than max_failed, {most:.2%}, were not read")
                return {}
        self.journal.write(step, {f"val/{name}": value for name, value in found.items()})
        best = self.work.best(self.config)
        told = {best: found[best]} if best in found else {} if best else found
        if told:
            words = "  ".join(f"val/{name} {value:.4g}" for name, value in told.items())
            say(f"step {step:,}  {words}")
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


def _say_settings(config) -> None:
    ours, usual = (configs.to_json(each) for each in (config, type(config)()))
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


def _write_documents(work: Work, folder, config, start, command, latest, saved) -> None:
    plain = configs.to_json(config)
    if saved is not None:
        document = provenance.resumed(saved, command, latest or 0)
    else:
        parents = [start.parent] if start.parent else []
        document = provenance.record(command, plain, start.data_sha256, start.weights, parents)
    journal.write_once(folder / "run.json", document)
    journal.write_once(folder / "model.json", work.model_document(start))
    journal.write_once(folder / "config.json", plain)
