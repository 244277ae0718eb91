"""A flow as it is written: steps, and handles of what they give, which are its only edges of data."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from batchflow.errors import FunctionError, UsageError
from batchflow.fingerprint import fingerprint
from batchflow.keeping import SUFFIXES
from batchflow.launch import ahead
from batchflow.manifest import describe
from batchflow.packing import Packed, Shipped, pack
from batchflow.plan import JobSpec, check_max_errors, check_spec
from batchflow.readers import records
from batchflow.resources import Resources
from batchflow.retry import NEVER, Retry
from batchflow.sources import Source
from batchflow.steps import ONE_CORE, Need, Step, StepSpec, Tolerant, need_of, nodes_of, unused
from batchflow.worker import Handle

if TYPE_CHECKING:
    from pyarrow import Table

    from batchflow.events import Listener
    from batchflow.executors import Executor
    from batchflow.flow_run import FlowRun

NONE: Final = object()
"""Stands for a value that was not given, where ``None`` may be one."""


class JobOptions(TypedDict, total=False):
    """Options of a step that is a whole job; see `batchflow.map_records`."""

    into: str | os.PathLike[str] | None
    format: str | None
    setup: Callable[[], Any] | None
    combine: Callable[[Table], Any] | None
    per_task: Resources
    retry: Retry
    timeout: float | None
    concurrency: int | None
    rate: float | str | None
    max_errors: int | float | None
    isolate: bool | None
    chunk: int | str | None
    part_size: int | str
    version: str | None
    fresh: bool


class Flow:
    """Steps with dependencies; steps that do not depend on each other run at the same time.

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
        self.folder = os.fspath(folder) if folder is not None else f".batchflow/{_file_name(name)}"
        self.steps: list[StepSpec] = []
        """What was written so far."""
        self._names: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        """Steps that were named after each function."""
        self.has_run = False
        """Whether it ran, so that it stays as it is."""
        self.token = os.urandom(8).hex()
        """Tells it from other flows, also where it comes back from another process."""
        self._shipped: dict[int, Shipped] = {}
        self._unfilled: dict[tuple[Any, ...], frozenset[str]] = {}
        """Parameters to which a call gives nothing, by function, number and names of its arguments."""

    def __len__(self) -> int:
        return len(self.steps)

    def __getstate__(self) -> dict[str, Any]:
        # What is looked up by where an object stands in memory is of no use in another process.
        return vars(self) | {"_shipped": {}, "_unfilled": {}}

    def __getitem__(self, name: str) -> Step:
        """Return a step by its name."""
        if name not in self._names:
            message = f"flow {self.name!r} has no step {name!r}; it has {', '.join(self._names) or 'none'}"
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
        """Add a call of a function; returns the handle of what it will give.

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
            "name": name, "after": after, "when": when, "default": default, "retry": retry, "timeout": timeout,
            "per_task": per_task, "cache": cache, "into": into,
        }  # fmt: skip
        name = self._name(name, fn)
        shipped = self._ship(name, fn)
        self._check_call(name, fn, args, kwargs, given)
        keep = self._kept(name, into, cache=cache)
        needs = _Needs(self, name)
        arguments = needs.pack((args, kwargs), "its arguments")
        wanted = self._when(name, when, needs)
        instead = None if default is NONE else needs.pack(default, "its default=")
        spec = StepSpec(
            name, shipped, arguments, tuple(needs), self._numbers(name, after), wanted, instead,
            _policy(name, retry), _seconds(name, timeout), _resources(name, "per_task", per_task), keep,
            "" if keep is None else fingerprint(fn, when, args, kwargs),
        )  # fmt: skip
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
        """Add a step that is a whole job: a call for each record, side by side with other steps.

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
        """Add a step that is a whole job: a call for each table of some records.

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

    def allow_failed(self, steps: Step | Iterable[Step], min_success: float = 0.0) -> Tolerant:
        """Return an argument for a step that also wants to know of failures; the step gets a `Partial`.

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
        return Tolerant(listed, min_success, single=single)

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
        """Run the steps; those that do not depend on each other at the same time.

        Parameters
        ----------
        on_error
            When a step has failed: ``"abort"`` starts nothing more, and gives what runs ten seconds to
            finish; ``"continue"`` goes on with everything that does not depend on it.
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
        StoppedError
            If more failed than ``max_errors`` allows.
        """
        if on_error not in ("abort", "continue"):
            message = f"on_error={on_error!r} must be 'abort' or 'continue'"
            raise UsageError(message)
        check_max_errors(max_errors)
        _resources(self.name, "limits", limits)
        if callable(listeners):
            message = f"listeners={listeners!r} is a function: pass a list of them"
            raise UsageError(message)
        jobs = any(step.fn is None for step in self.steps)
        with ahead(executor, threads=1, arrow=jobs):
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
        from batchflow.conducting import Conduct, conduct  # only now that a worker is starting

        how = Conduct(
            on_error == "abort", max_errors, _chosen(self, only, "only="),
            keep if isinstance(keep, bool) else _chosen(self, keep, "keep="), limits or Resources(), progress,
            tuple(listeners),
        )  # fmt: skip
        return conduct(self, how, executor)

    def explain(self) -> str:
        """Return what runs with what, the longest chain and the widest point, and needless waits; runs nothing."""
        from batchflow.explaining import explain  # only for those who ask

        return explain(nodes_of(self.steps))

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Draw the graph: ``.svg``, or Mermaid as ``.mmd``.

        Raises
        ------
        UsageError
            If the file is neither.
        """
        from batchflow.flow_run import draw  # only for those who ask

        draw(nodes_of(self.steps), self.name, path)

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
        if not isinstance(source, Source | Handle) and read is None:
            source = records(source)
        job: dict[str, Any] = {**options, "per": per, "fn": fn}
        if job.get("into") is not None:
            job["into"] = os.fspath(job["into"])
        _check_job(name, {**job, "args": dict(args or {})})
        needs = _Needs(self, name)
        arguments = needs.pack(((source,), dict(args or {})), "its input or args=")
        wanted = self._when(name, when, needs)
        instead = None if default is NONE else needs.pack(default, "its default=")
        spec = StepSpec(
            name, None, arguments, tuple(needs), self._numbers(name, after), wanted, instead,
            per_task=job.get("per_task") or ONE_CORE, job=job,
            key=fingerprint(fn, read, job.get("setup"), job.get("combine"), sorted(job.items(), key=_first), args),
            read=None if read is None else self._ship(name, read),
        )  # fmt: skip
        return self._add(spec)

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
        if not _is_name(name):
            message = f"step {len(self.steps) + 1} of flow {self.name!r}: name={name!r} must be a text"
            raise UsageError(message)
        if name in self._names:
            message = f"flow {self.name!r} has a step {name!r} already: give each a name of its own"
            raise UsageError(message)
        return name

    def _ship(self, name: str, fn: Callable[..., Any]) -> Shipped:
        """Return a function ready to travel, pickled once however many steps call it."""
        shipped = self._shipped.get(id(fn))
        if shipped is None:
            shipped = self._shipped[id(fn)] = Shipped(fn)
            try:
                shipped.pickled  # noqa: B018 - so that it is known here and now whether it can be
            except Exception as error:
                message = f"step {name!r}: {describe(fn)} cannot be shipped to a worker: {error}"
                raise FunctionError(message) from error
        return shipped

    def _check_call(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> None:
        """Refuse arguments that the function does not take, and options that it may be meant to take.

        Parameters
        ----------
        given
            Options of the step.
        """
        options = [key for key, value in given.items() if _is_given(value)]
        try:
            unfilled = self._unfilled_by(name, fn, args, kwargs)
        except FunctionError as error:
            taken = [key for key in options if f"'{key}'" in str(error)]
            hint = f" ({taken[0]}= is an option of the step: pass it by position)" if taken else ""
            message = f"{error}{hint}"
            raise FunctionError(message) from error
        unsure = [key for key in options if key in unfilled]
        if unsure:
            message = (
                f"step {name!r}: {unsure[0]}= is an option of the step, but {describe(fn)} has a parameter of "
                "that name: pass that by position, or with functools.partial"
            )
            raise FunctionError(message)

    def _unfilled_by(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> frozenset[str]:
        """Return the parameters to which a call gives nothing; none for a builtin that does not tell any."""
        call = (id(fn), len(args), *kwargs)
        if call not in self._unfilled:
            try:
                signature = inspect.signature(fn)
            except (TypeError, ValueError):
                return frozenset()
            try:
                bound = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                message = f"step {name!r}: {describe(fn)} cannot be called so: {error}"
                raise FunctionError(message) from error
            self._unfilled[call] = frozenset(signature.parameters.keys() - bound.keys())
        return self._unfilled[call]

    def _numbers(self, name: str, steps: Step | Iterable[Step]) -> tuple[int, ...]:
        """Return the numbers of steps of this flow."""
        listed = [steps] if isinstance(steps, Step) else list(steps)
        for step in listed:
            if not isinstance(step, Step):
                message = f"step {name!r}: after={step!r} is no step: pass handles of this flow"
                raise UsageError(message)
            self._check_own(name, step)
        return tuple(step.number for step in listed)

    def _check_own(self, name: str, step: Step) -> None:
        if step.flow is not self:
            message = (
                f"step {name!r} of flow {self.name!r} takes step {step.name!r} of flow {step.flow.name!r}: "
                "only steps of one flow can depend on each other"
            )
            raise UsageError(message)

    def _when(self, name: str, when: Any, needs: _Needs) -> int | Shipped | None:
        if when is None:
            return None
        if isinstance(when, Step):
            return needs.number(when)
        if not callable(when):
            message = f"step {name!r}: when={when!r} is neither a step nor a function"
            raise UsageError(message)
        return self._ship(name, when)

    def _kept(self, name: str, into: str | os.PathLike[str] | None, *, cache: bool) -> str | None:
        """Return where the value of a step is kept, without a suffix where that follows its kind."""
        if into is None:
            path = os.path.join(self.folder, _file_name(name)) if cache else None  # noqa: PTH118
        else:
            path = os.fspath(into)
            if not path.endswith(SUFFIXES):
                message = f"step {name!r}: into={path!r} must end with one of {', '.join(SUFFIXES)}"
                raise UsageError(message)
        return None if path is None else os.path.abspath(path)  # noqa: PTH100 - a function may change the folder

    def _add(self, spec: StepSpec) -> Step:
        self._names[spec.name] = len(self.steps)
        self.steps.append(spec)
        return Step(self, len(self.steps) - 1)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}: {len(self.steps):,} steps>"


class _Needs(list[Need]):
    """What a step takes of others, found in its arguments."""

    def __init__(self, flow: Flow, name: str) -> None:
        super().__init__()
        self._flow = flow
        self._name = name
        self._at: dict[Need, int] = {}

    def pack(self, value: Any, what: str) -> Packed:
        """Return arguments with places where handles stood in them."""
        try:
            return pack(value, self._place)
        except UsageError:
            raise
        except Exception as error:
            message = f"step {self._name!r}: {what} cannot be pickled, so no worker can get them: {error}"
            raise FunctionError(message) from error

    def _place(self, value: Any) -> int | None:
        return self.number(value) if isinstance(value, Handle) else None

    def number(self, handle: Handle) -> int:
        """Return the number of a place for what a handle stands for."""
        assert isinstance(handle, Step | Tolerant)
        need, steps = need_of(handle)
        for step in steps:
            self._flow._check_own(self._name, step)
        if need not in self._at:
            self._at[need] = len(self)
            self.append(need)
        return self._at[need]


def _first(item: tuple[str, Any]) -> str:
    return item[0]


_UNSET: Final = frozenset(map(id, (None, NONE, NEVER, False, ())))
"""Where the values stand that options of a step have by themselves."""


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _is_given(value: Any) -> bool:
    """Whether an option of a step has another value than the one it has by itself."""
    return id(value) not in _UNSET


def _check_job(name: str, options: dict[str, Any]) -> None:
    """Refuse options of a job that cannot work, whatever its input will be."""
    known = {one.name for one in fields(JobSpec)}
    unknown = sorted(options.keys() - known)
    if unknown:
        message = f"step {name!r}: a job has no option {', '.join(unknown)}"
        raise UsageError(message)
    try:
        check_spec(JobSpec(source=records([]), **options))
    except UsageError as error:
        error.args = (f"step {name!r}: {error}",)
        raise


def _resources(name: str, option: str, amount: Any) -> Resources:
    if amount is None:
        return ONE_CORE  # one for all, so that it is looked at once
    if not isinstance(amount, Resources):
        message = f"{name!r}: {option}={amount!r} must be Resources, like {option}=bf.Resources(cpus=2)"
        raise UsageError(message)
    return amount


def _policy(name: str, retry: Any) -> Retry:
    if not isinstance(retry, Retry):
        message = f"step {name!r}: retry={retry!r} must be a Retry, like retry=Retry(attempts=3)"
        raise UsageError(message)
    return retry


def _seconds(name: str, timeout: Any) -> float | None:
    if timeout is not None and (timeout is True or not (isinstance(timeout, int | float) and timeout > 0)):
        message = f"step {name!r}: timeout={timeout!r} must be a number of seconds over 0"
        raise UsageError(message)
    return timeout




def _file_name(name: str) -> str:
    """Return a name as a file may be called, and as no other name is."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _chosen(flow: Flow, steps: Step | str | Iterable[Step | str] | None, what: str) -> set[int] | None:
    """Return the numbers of steps that were named; ``None``: of all."""
    if steps is None:
        return None
    listed = [steps] if isinstance(steps, Step | str) else list(steps)
    chosen = [flow[step] if isinstance(step, str) else step for step in listed]
    for step in chosen:
        if not isinstance(step, Step):
            message = f"{what}{step!r} is no step: pass handles of this flow, or their names"
            raise UsageError(message)
        flow._check_own(what, step)
    return {step.number for step in chosen}
