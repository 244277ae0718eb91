"""Validation of step arguments when a step is added, so that errors name the step."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from batchflow.core.fingerprint import FingerprintError, fingerprint
from batchflow.core.functions import describe
from batchflow.core.resources import Resources
from batchflow.core.retry import NEVER, Retry
from batchflow.core.serialization import Pickled, PickledFunction, pickle_value
from batchflow.core.text import did_you_mean
from batchflow.errors import FunctionError, UsageError
from batchflow.flows.steps import DEFAULT_RESOURCES, FailureTolerantInput, Step, StepInput, need_of
from batchflow.io.readers import records
from batchflow.io.step_cache import SUFFIXES
from batchflow.jobs.validation import check_spec
from batchflow.plan import JobSpec
from batchflow.worker import StepHandle

if TYPE_CHECKING:
    from batchflow.flows.flow import Flow

NONE: Final = object()
"""Sentinel of a missing value, if ``None`` is a valid one."""
_UNSET: Final = frozenset(map(id, (None, NONE, NEVER, False, ())))
"""Identities of the default values of step options."""
_NOTHING: Final[frozenset[str]] = frozenset()
_PLAIN: Final = frozenset({int, float, bool, str, bytes, type(None)})
"""Types of arguments that cannot contain a handle."""


class FunctionRegistry:
    """Functions of a flow, checked and pickled once each however many steps call them."""

    def __init__(self) -> None:
        self._shipped: dict[int, PickledFunction] = {}
        self._parameters: dict[int, _Parameters] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionRegistry, ()  # where an object stands in memory says nothing in another process

    def ship(self, name: str, fn: Callable[..., Any]) -> PickledFunction:
        """Return a pickled function, shared by all steps that call it."""
        shipped = self._shipped.get(id(fn))
        if shipped is None:
            shipped = self._shipped[id(fn)] = PickledFunction(fn)
            try:
                shipped.pickled  # noqa: B018 - so that it is known here and now whether it can be
            except Exception as error:
                message = f"step {name!r}: {describe(fn)} cannot be shipped to a worker: {error}"
                raise FunctionError(message) from error
        return shipped

    def check_call(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> None:
        """Refuse arguments that the function does not take, and likely misplaced options.

        Parameters
        ----------
        given
            Options of the step.
        """
        parameters = self._parameters.get(id(fn))
        if parameters is None:
            parameters = self._parameters[id(fn)] = _parameters_of(fn)
        if parameters.unfilled.get((len(args), *kwargs)) == _NOTHING:
            return  # as another step calls it, and no parameter is left that an option may be meant for
        options = [key for key, value in given.items() if _is_given(value)]
        try:
            unfilled = parameters.unfilled_by(args, kwargs)
        except TypeError as error:
            taken = [key for key in options if f"'{key}'" in str(error)]
            hint = f" ({taken[0]}= is an option of the step: pass it by position)" if taken else ""
            message = f"step {name!r}: {describe(fn)} cannot be called so: {error}{hint}"
            raise FunctionError(message) from error
        unsure = [key for key in options if key in unfilled]
        if unsure:
            message = (
                f"step {name!r}: {unsure[0]}= is an option of the step, but {describe(fn)} has a parameter of "
                "that name: pass that by position, or with functools.partial"
            )
            raise FunctionError(message)


class _Parameters:
    """Parameters of a function."""

    def __init__(self, signature: inspect.Signature | None) -> None:
        self._signature = signature
        self.unfilled: dict[tuple[object, ...], frozenset[str]] = {}
        """Parameters to which a call gives nothing, by the number and names of its arguments."""

    def unfilled_by(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> frozenset[str]:
        """Return the parameters to which a call gives nothing; none for a builtin that does not tell any.

        Raises
        ------
        TypeError
            If it cannot be called so.
        """
        call = (len(args), *kwargs)
        if call not in self.unfilled:
            if self._signature is None:
                return frozenset()
            bound = self._signature.bind(*args, **kwargs).arguments
            self.unfilled[call] = frozenset(self._signature.parameters.keys() - bound.keys())
        return self.unfilled[call]


_known: WeakKeyDictionary[Callable[..., Any], _Parameters] = WeakKeyDictionary()


def _parameters_of(fn: Callable[..., Any]) -> _Parameters:
    """Return what a function takes; looked at once for all flows."""
    try:
        if fn not in _known:
            _known[fn] = _Parameters(_told_signature(fn))
        return _known[fn]
    except TypeError:  # it cannot be a key
        return _Parameters(_told_signature(fn))


def _told_signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


class InputCollector(list[StepInput]):
    """What a step takes of others, found in its arguments."""

    def __init__(self, flow: Flow, name: str) -> None:
        super().__init__()
        self._flow = flow
        self._name = name
        self._at: dict[StepInput, int] = {}

    def pack(self, value: Any, what: str) -> Pickled:
        """Return arguments with places where handles stood in them."""
        try:
            return pickle_value(value, None if _is_plain(value) else self._place)
        except UsageError:
            raise
        except Exception as error:
            message = f"step {self._name!r}: {what} cannot be pickled, so no worker can get them: {error}"
            raise FunctionError(message) from error

    def _place(self, value: Any) -> int | None:
        return self.number(value) if isinstance(value, StepHandle) else None

    def number(self, handle: StepHandle) -> int:
        """Return the number of a place for what a handle stands for."""
        assert isinstance(handle, Step | FailureTolerantInput)
        need, steps = need_of(handle)
        for step in steps:
            check_own(self._flow, self._name, step)
        if need not in self._at:
            self._at[need] = len(self)
            self.append(need)
        return self._at[need]


def _is_plain(value: Any) -> bool:
    """Whether arguments are by position and of plain types, as for a step for each of many names or numbers."""
    return type(value) is tuple and value[1:] == ({},) and all(type(one) in _PLAIN for one in value[0])


def check_own(flow: Flow, name: str, step: Step) -> None:
    """Refuse a step of another flow."""
    if step.flow is not flow:
        message = (
            f"step {name!r} of flow {flow.name!r} takes step {step.name!r} of flow {step.flow.name!r}: "
            "only steps of one flow can depend on each other"
        )
        raise UsageError(message)


def numbers_of(flow: Flow, name: str, steps: Step | Iterable[Step]) -> tuple[int, ...]:
    """Return the numbers of steps of this flow."""
    listed = [steps] if isinstance(steps, Step) else list(steps)
    for step in listed:
        if not isinstance(step, Step):
            message = f"step {name!r}: after={step!r} is no step: pass handles of this flow"
            raise UsageError(message)
        check_own(flow, name, step)
    return tuple(step.number for step in listed)


def chosen_of(flow: Flow, steps: Step | str | Iterable[Step | str] | None, what: str) -> set[int] | None:
    """Return the numbers of steps that were named; ``None``: of all."""
    if steps is None:
        return None
    listed = [steps] if isinstance(steps, Step | str) else list(steps)
    chosen = [flow[step] if isinstance(step, str) else step for step in listed]
    for step in chosen:
        if not isinstance(step, Step):
            message = f"{what}{step!r} is no step: pass handles of this flow, or their names"
            raise UsageError(message)
        check_own(flow, what, step)
    return {step.number for step in chosen}


def kept_at(folder: str, name: str, into: str | os.PathLike[str] | None, *, cache: bool) -> str | None:
    """Return where the value of a step is kept, without a suffix where that follows its kind."""
    if into is None:
        path = os.path.join(folder, file_name(name)) if cache else None
    else:
        path = os.fspath(into)
        if not path.endswith(SUFFIXES):
            message = f"step {name!r}: into={path!r} must end with one of {', '.join(SUFFIXES)}"
            raise UsageError(message)
    return None if path is None else os.path.abspath(path)


def fingerprint_of(name: str, *values: Any) -> str:
    """Return the fingerprint of a step that is kept: of its function and what it is called with."""
    try:
        return fingerprint(*values, opaque=(StepHandle,))
    except FingerprintError as error:
        message = f"step {name!r} cannot be kept: {error}; leave out cache= and into=, or pass another value"
        raise UsageError(message) from error


def is_name(name: object) -> bool:
    """Whether a step may be called so."""
    return isinstance(name, str) and bool(name)


def file_name(name: str) -> str:
    """Return a name as a file may be called, and as no other name is."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _is_given(value: Any) -> bool:
    """Whether an option of a step has another value than the one it has by itself."""
    return id(value) not in _UNSET


def check_job(name: str, options: dict[str, Any]) -> None:
    """Refuse options of a job that cannot work, whatever its input will be."""
    known = {one.name for one in fields(JobSpec)}
    unknown = sorted(options.keys() - known)
    if unknown:
        message = f"step {name!r}: a job has no option {', '.join(unknown)}{did_you_mean(unknown[0], known)}"
        raise UsageError(message)
    try:
        check_spec(JobSpec(source=records([]), **options))
    except UsageError as error:
        error.args = (f"step {name!r}: {error}",)
        raise


def resources(name: str, option: str, amount: Any) -> Resources:
    """Return an amount of resources; refuse what is none."""
    if amount is None:
        return DEFAULT_RESOURCES  # one for all, so that it is looked at once
    if not isinstance(amount, Resources):
        message = f"{name!r}: {option}={amount!r} must be Resources, like {option}=bf.Resources(cpus=2)"
        raise UsageError(message)
    return amount


def policy(name: str, retry: Any) -> Retry:
    """Return a policy; refuse what is none."""
    if not isinstance(retry, Retry):
        message = f"step {name!r}: retry={retry!r} must be a Retry, like retry=Retry(attempts=3)"
        raise UsageError(message)
    return retry


def seconds(name: str, timeout: Any) -> float | None:
    """Return a time limit; refuse what is none."""
    if timeout is not None and (timeout is True or not (isinstance(timeout, int | float) and timeout > 0)):
        message = f"step {name!r}: timeout={timeout!r} must be a number of seconds over 0"
        raise UsageError(message)
    return timeout
