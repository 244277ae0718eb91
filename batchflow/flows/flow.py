"""Flow definition: steps, and the handles of their values that form its data edges."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from batchflow.core.fingerprint import examine
from batchflow.core.resources import Resources
from batchflow.core.retry import NEVER, Retry
from batchflow.core.serialization import PickledFunction
from batchflow.core.text import did_you_mean
from batchflow.errors import FunctionError, UsageError
from batchflow.executors.processes.launcher import prestarted_fork_server
from batchflow.flows.step_paths import StepPlaces
from batchflow.flows.steps import (
    DEFAULT_RESOURCES,
    FailureTolerantInput,
    JobOptions,
    Step,
    StepSpec,
    nodes_of,
    unused,
)
from batchflow.flows.validation import (
    NONE,
    FunctionRegistry,
    InputCollector,
    check_job,
    chosen_of,
    file_name,
    fingerprint_of,
    is_name,
    kept_at,
    numbers_of,
    policy,
    resources,
    seconds,
)
from batchflow.io.readers import records
from batchflow.io.sources import Source
from batchflow.jobs.validation import check_max_errors
from batchflow.worker import StepHandle

if TYPE_CHECKING:
    from batchflow.events import Listener
    from batchflow.executors import Executor
    from batchflow.flows.result import FlowRun


class Flow:
    """Graph of steps; independent steps run concurrently.

    A flow is written first and run then. A step that is passed to another one stands for what it will
    give, so a dependency cannot be forgotten, and a cycle cannot be written.

    Parameters
    ----------
    name
        What the flow is called, in reports and on disk.
    folder
        Where steps with ``cache=True`` keep what they gave; by default ``.batchflow/<name>``.

    Examples
    --------
    >>> import batchflow as bf
    >>> flow = bf.Flow("sum of squares")
    >>> squares = [flow.step(pow, number, 2, name=f"square {number}") for number in (2, 3)]
    >>> total = flow.step(sum, squares)
    >>> flow.run(executor="serial")[total].value
    13
    """

    def __init__(self, name: str = "flow", *, folder: str | os.PathLike[str] | None = None) -> None:
        self.name = name
        self.folder: str = os.fspath(folder) if folder is not None else f".batchflow/{file_name(name)}"
        self.steps: list[StepSpec] = []
        """Steps added so far."""
        self._names: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        """Number of steps named after each function."""
        self.has_run = False
        """Whether the flow has run and can no longer change."""
        self.token: str = os.urandom(8).hex()
        """Identifier of the flow, preserved by pickling."""
        self._functions = FunctionRegistry()
        self._places = StepPlaces()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        """Return a step by its name."""
        if name not in self._names:
            message = f"flow {self.name!r} has no step {name!r}; it has {', '.join(self._names) or 'none'}"
            message += did_you_mean(name, self._names)
            raise UsageError(message)
        return Step(self, self._names[name])

    def step(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        after: Step | Iterable[Step] = (),
        when: Step | Callable[..., Any] | None = None,
        default: Any = NONE,
        retry: Retry = NEVER,
        timeout: float | None = None,
        per_task: Resources | None = None,
        cache: bool = False,
        into: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Step:
        """Add a call of a function; returns the handle of its value.

        Parameters
        ----------
        fn
            The function, which may be ``async def``. What it returns goes to the steps that take the
            handle; a generator is made a list of. If it returns handles of another flow, alone or in
            a list, tuple or dict, then those steps run too, and their values take the handles' place.
        args, kwargs
            Arguments; wherever a handle stands in them, also inside other values, the function gets
            what that step gave.
        name
            By default that of the function; later steps of the same name get a number.
        after
            Steps to wait for that give nothing to this one.
        when
            The step is skipped, and what depends on it, unless this holds: a handle whose value is
            true, or a function of the same arguments that returns something true.
        default
            What a step that was skipped for ``when=`` gives in its place.
        retry
            How often it is tried; by default once.
        timeout
            Seconds of one try, from its real start. Not kept by `Serial`.
        per_task
            What it takes; ``Resources(cpus=0)`` for one that only waits, which holds no core: 32 of those
            run at the same time, at most.
        cache
            Keep what it gave on disk, and do not run it again for the same function and arguments.
        into
            File for what it gave, kept in the same way: ``"x.parquet"`` or ``"x.arrow"`` for tables,
            ``"x.json"`` for what JSON holds.

        Raises
        ------
        UsageError
            If it cannot work, as far as can be known by now; the message names the step.
        """
        given = {
            "name": name,
            "after": after,
            "when": when,
            "default": default,
            "retry": retry,
            "timeout": timeout,
            "per_task": per_task,
            "cache": cache,
            "into": into,
        }
        name = self._name(name, fn)
        shipped = self._functions.ship(name, fn)
        self._functions.check_call(name, fn, args, kwargs, given)
        keep = kept_at(self.folder, name, into, cache=cache)
        needs = InputCollector(self, name)
        arguments = needs.pack((args, kwargs), "its arguments")
        wanted = self._when(name, when, needs)
        instead = None if default is NONE else needs.pack(default, "its default=")
        spec = StepSpec(
            name,
            shipped,
            arguments,
            tuple(needs),
            numbers_of(self, name, after),
            wanted,
            instead,
            policy(name, retry),
            seconds(name, timeout),
            resources(name, "per_task", per_task),
            keep,
            "" if keep is None else fingerprint_of(name, fn, when, args, kwargs),
        )
        return self._add(spec)

    def map_records(
        self,
        fn: Callable[..., Any],
        source: Any,
        *,
        name: str | None = None,
        after: Step | Iterable[Step] = (),
        when: Step | Callable[..., Any] | None = None,
        default: Any = NONE,
        read: Callable[[Any], Source] | None = None,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> Step:
        """Add a step that is a whole job: one call per record, concurrent with other steps.

        Its value is the table of all rows (a list, where no table holds them), or with ``into=`` the
        path of the output.

        Parameters
        ----------
        fn, args, options
            As for `batchflow.map_records`; ``args`` may hold handles.
        source
            As there; or a handle whose value is a source, a list, a table or a frame.
        name, after, when, default
            As for `step`.
        read
            What makes a source of the value of a handle: `batchflow.files`, say, where it is a list of
            paths.

        Raises
        ------
        UsageError
            If it cannot work, as far as can be known by now; the message names the step.
        """
        return self._map("record", fn, source, name, after, when, default, read, args, options)

    def map_batches(
        self,
        fn: Callable[..., Any],
        source: Any,
        *,
        name: str | None = None,
        after: Step | Iterable[Step] = (),
        when: Step | Callable[..., Any] | None = None,
        default: Any = NONE,
        read: Callable[[Any], Source] | None = None,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> Step:
        """Add a step that is a whole job: one call per table of some records.

        Parameters
        ----------
        fn, args, options
            As for `batchflow.map_batches`; ``args`` may hold handles.
        source, name, after, when, default, read
            As for `map_records`.

        Raises
        ------
        UsageError
            If it cannot work, as far as can be known by now; the message names the step.
        """
        return self._map("batch", fn, source, name, after, when, default, read, args, options)

    def allow_failed(self, steps: Step | Iterable[Step], min_success: float = 0.0) -> FailureTolerantInput:
        """Return an argument that passes values and failures to a step, as a `Partial`.

        Parameters
        ----------
        steps
            One step, or several: then what those gave that succeeded is a list.
        min_success
            Share of the steps, or of the records of one step that is a job, without which the step is
            skipped all the same.
        """
        single = isinstance(steps, Step)
        listed = [steps] if isinstance(steps, Step) else list(steps)
        if not listed or not all(isinstance(step, Step) for step in listed) or not 0 <= min_success <= 1:
            message = f"allow_failed({steps!r}, {min_success}): give one or more steps, and a share from 0 to 1"
            raise UsageError(message)
        return FailureTolerantInput(listed, min_success, single=single)

    def run(
        self,
        *,
        on_error: Literal["abort", "continue"] = "abort",
        max_errors: int | float | None = None,
        only: Step | str | Iterable[Step | str] | None = None,
        keep: bool | Iterable[Step | str] = False,
        limits: Resources | None = None,
        executor: Executor | str | None = None,
        progress: bool | None = None,
        listeners: Sequence[Listener] = (),
    ) -> FlowRun:
        """Run the steps; independent ones run concurrently.

        Parameters
        ----------
        on_error
            When a step has failed: ``"abort"`` starts nothing more, gives what runs ten seconds to
            finish, and raises `FlowError`; ``"continue"`` runs everything that does not depend on it,
            and returns the run. A step that is a job has failed if none of its records succeeded.
        max_errors
            Rows of the error table that are too many, as for `batchflow.map_records`: then nothing
            more starts.
        only
            Steps to run, with what they need; by default all.
        keep
            Steps whose values are kept beside those that no other step takes; ``True``: all of them.
        limits
            Caps of everything that runs at the same time.
        executor, progress
            As for `batchflow.map_records`.
        listeners
            Called with every event of `batchflow.events`.

        Returns
        -------
        FlowRun
            What became of each step; ``run[step].value`` is what it gave.

        Raises
        ------
        UsageError
            If the flow cannot work; nothing has run then.
        FlowError
            If a step failed; its ``run`` is the `FlowRun`.
        StoppedError
            If more failed than ``max_errors`` allows.
        """
        if on_error not in ("abort", "continue"):
            message = f"on_error={on_error!r} must be 'abort' or 'continue'"
            raise UsageError(message)
        check_max_errors(max_errors)
        resources(self.name, "limits", limits)
        if callable(listeners):
            message = f"listeners={listeners!r} is a function: pass a list of them"
            raise UsageError(message)
        jobs = any(step.fn is None for step in self.steps)
        with prestarted_fork_server(executor, threads=1, arrow=jobs):
            return self._run(on_error, max_errors, only, keep, limits, executor, progress, listeners)

    def _run(
        self,
        on_error: str,
        max_errors: int | float | None,
        only: Step | str | Iterable[Step | str] | None,
        keep: bool | Iterable[Step | str],
        limits: Resources | None,
        executor: Executor | str | None,
        progress: bool | None,
        listeners: Sequence[Listener],
    ) -> FlowRun:
        from batchflow.flows.scheduler import FlowOptions, run_flow  # only now that a worker is starting

        how = FlowOptions(
            on_error == "abort",
            max_errors,
            chosen_of(self, only, "only="),
            keep if isinstance(keep, bool) else chosen_of(self, keep, "keep="),
            limits or Resources(),
            progress,
            tuple(listeners),
        )
        return run_flow(self, how, executor)

    def explain(self) -> str:
        """Return critical path, maximum parallelism and redundant dependencies; runs nothing."""
        from batchflow.reporting.graph.explain import explain  # only for those who ask

        return explain(nodes_of(self.steps))

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the graph: ``.svg``, or Mermaid as ``.mmd``.

        Raises
        ------
        UsageError
            If the file is neither.
        """
        from batchflow.flows.result import draw  # only for those who ask

        draw(nodes_of(self.steps), self.name, path)

    def _repr_html_(self) -> str:
        """Return the drawing of the flow for a notebook."""
        from batchflow.reporting.graph.render import svg
        from batchflow.reporting.notebook import page

        return page(svg(nodes_of(self.steps), self.name))

    # --- how a step is added ----------------------------------------------------------------------

    def _map(
        self,
        per: Literal["record", "batch"],
        fn: Callable[..., Any],
        source: Any,
        name: str | None,
        after: Step | Iterable[Step],
        when: Step | Callable[..., Any] | None,
        default: Any,
        read: Callable[[Any], Source] | None,
        args: Mapping[str, Any] | None,
        options: JobOptions,
    ) -> Step:
        name = self._name(name, fn)
        if not isinstance(source, Source | StepHandle) and read is None:
            source = records(source)
        job: dict[str, Any] = {**options, "per": per, "fn": fn}
        if job.get("into") is not None:
            job["into"] = os.fspath(job["into"])
        check_job(name, {**job, "args": dict(args or {})})
        needs = InputCollector(self, name)
        arguments = needs.pack(((source,), dict(args or {})), "its input or args=")
        wanted = self._when(name, when, needs)
        instead = None if default is NONE else needs.pack(default, "its default=")
        spec = StepSpec(
            name,
            None,
            arguments,
            tuple(needs),
            numbers_of(self, name, after),
            wanted,
            instead,
            per_task=job.get("per_task") or DEFAULT_RESOURCES,
            job=job,
            key=examine(fn, read, sorted(job.items(), key=_first), args, opaque=(StepHandle,)).digest,
            read=None if read is None else self._functions.ship(name, read),
        )
        return self._add(spec, getattr(source, "paths", ()))

    def _name(self, name: str | None, fn: Any) -> str:
        """Return the name of a new step."""
        if self.has_run:
            message = f"flow {self.name!r} has run, so no step can be added: write a new Flow"
            raise UsageError(message)
        if not callable(fn):
            kind = type(fn).__name__
            message = f"step {name or len(self.steps) + 1} of flow {self.name!r} is a {kind}: pass a function"
            raise FunctionError(message)
        if name is None:
            base = getattr(getattr(fn, "func", fn), "__name__", type(fn).__name__)
            return unused(base, self._names, self._counted)
        if not is_name(name):
            message = f"step {len(self.steps) + 1} of flow {self.name!r}: name={name!r} must be a text"
            raise UsageError(message)
        if name in self._names:
            message = f"flow {self.name!r} has a step {name!r} already: give each a name of its own"
            raise UsageError(message)
        return name

    def _when(self, name: str, when: Any, needs: InputCollector) -> int | PickledFunction | None:
        if when is None:
            return None
        if isinstance(when, Step):
            return needs.number(when)
        if not callable(when):
            message = f"step {name!r}: when={when!r} is neither a step nor a function"
            raise UsageError(message)
        return self._functions.ship(name, when)

    def _is_before(self, first: int, second: int) -> bool:
        """Whether one step must end before another one starts."""
        waiting, seen = [second], set[int]()
        while waiting:
            parents = self.steps[waiting.pop()].parents - seen
            if first in parents:
                return True
            seen |= parents
            waiting += parents
        return False

    def _add(self, spec: StepSpec, paths: Sequence[str] = ()) -> Step:
        self.steps.append(spec)
        into = spec.keep if spec.job is None else spec.job.get("into")
        if into is not None or paths:
            try:
                self._places.add(len(self.steps) - 1, spec.name, into, paths, self._is_before)
            except UsageError:
                self.steps.pop()
                raise
        self._names[spec.name] = len(self.steps) - 1
        return Step(self, len(self.steps) - 1)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}: {len(self.steps):,} steps>"


def _first(item: tuple[str, Any]) -> str:
    return item[0]
