"""Manifest of an output: ``plan.json`` next to it, compared with the plans of later runs."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from batchflow.core.chunks import UNKNOWN_VERSION, InputFile
from batchflow.core.fingerprint import Fingerprint
from batchflow.core.rate import parse_rate
from batchflow.core.resources import Resources
from batchflow.core.retry import NEVER, Retry
from batchflow.core.text import next_version, printable
from batchflow.errors import ChangedError, FunctionError, LedgerError
from batchflow.io.sources.compression import by_suffix
from batchflow.io.sources.listing import is_sent
from batchflow.io.stores import Place, is_uri, store_of

if TYPE_CHECKING:
    from batchflow.plan import JobSpec


PLAN = "plan.json"
_NEW = "plan.json.new"


def options_of(spec: JobSpec) -> dict[str, Any]:
    """Return the options that a later `batchflow retry` applies again, as plain values; rates as text."""
    rate = None if spec.rate is None else parse_rate(spec.rate)
    retry = None if spec.retry == NEVER else spec.retry
    return {
        "chunk": spec.chunk,
        "part_size": spec.part_size,
        "max_errors": spec.max_errors,
        "isolate": spec.isolate,
        "timeout": spec.timeout,
        "concurrency": spec.concurrency,
        "rate": rate and f"{rate.per_second:.12f}/s burst {rate.burst}",
        "retry": retry and retry._asdict() | {"on": _exceptions(retry.on)},
        "limits": spec.limits._asdict(),
        "per_task": spec.per_task._asdict(),
    }


def job_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded options as fields of a job; modules of the user's exceptions must be importable.

    Raises
    ------
    FunctionError
        If an exception class of ``Retry(on=…)`` cannot be found.
    """
    retry = options["retry"]
    if retry is not None:
        names = retry["on"]
        on = None if names is None else tuple(map(_load_exception, names))
        retry = Retry(**retry | {"on": on})
    return dict(options) | {
        "retry": retry or NEVER,
        "limits": Resources(**options["limits"]),
        "per_task": Resources(**options["per_task"]),
    }


def _exceptions(on: tuple[type[BaseException], ...] | type[BaseException] | None) -> list[str] | None:
    """Return the names of exception classes, as ``module:name``."""
    if on is None:
        return None
    kinds = on if isinstance(on, tuple) else (on,)
    return [f"{kind.__module__}:{kind.__qualname__}" for kind in kinds]


def _load_exception(name: str) -> Any:
    module, _, kind = name.partition(":")
    try:
        return attrgetter(kind)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        message = f"cannot find {name}, of retry=Retry(on=…) of the run ({error}): say --retry N"
        raise FunctionError(message) from error


def comparable_digest(found: Fingerprint) -> str:
    """Return a fingerprint as it is stored; an unknown one has a reason."""
    return found.digest or f"{_UNKNOWN}{found.unknown}"


_UNKNOWN = "unknown: "


def encoded(plan: Mapping[str, Any]) -> bytes:
    """Return a plan as the bytes of its file."""
    return json.dumps(plan, indent=1, default=str).encode()


def digest_of(data: bytes) -> str:
    """Return the digest of a plan's file for the ledger."""
    return hashlib.sha256(data).hexdigest()[:32]


def write_plan(meta: Place, data: bytes) -> None:
    """Write a plan durably under its temporary name; `publish_plan` renames it."""
    store_of(meta).put(meta / _NEW, data)


def publish_plan(meta: Place) -> None:
    """Replace the previous plan, after the ledger has recorded the new one."""
    store_of(meta).move(meta / _NEW, meta / PLAN)


def read_plan(meta: Place) -> tuple[dict[str, Any], str]:
    """Return the plan in a folder, and its digest; that of the last run, even if it died before it was published.

    Raises
    ------
    LedgerError
        If it cannot be read.
    """
    try:
        store = store_of(meta)
        data = store.read(meta / (_NEW if store.size(meta / PLAN) is None else PLAN))
        plan: dict[str, Any] = json.loads(data)
        inputs_of(plan)
    except (OSError, ValueError, TypeError, LookupError) as error:
        why = "it is gone" if isinstance(error, FileNotFoundError) else error
        message = f"cannot read {meta / PLAN}: {why}; fresh=True (--fresh) makes all of the output again"
        raise LedgerError(message) from error
    return plan, digest_of(data)


def input_entry(item: InputFile) -> dict[str, Any]:
    """Return an input as plain values: its canonical location and the user's spelling."""
    place = {"place": item.place} if item.place else {}
    return {"uri": item.uri, **place, "size": item.size, "version": item.version}


def respelled(entries: Sequence[dict[str, Any]], before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of inputs, in the spelling of an earlier plan if it has them."""
    known = {item.get("place", item["uri"]): item for item in before["inputs"]}
    old = [known.get(entry.get("place", entry["uri"]), entry) for entry in entries]
    return [
        item | {"size": entry["size"], "version": entry["version"]}
        for entry, item in zip(entries, old, strict=True)
    ]


def inputs_of(plan: Mapping[str, Any]) -> list[InputFile]:
    """Return the inputs that a plan names, in their recorded state."""
    now, then = os.getcwd(), plan["folder"]
    sent = is_sent(then) or is_sent(now)
    return [_input(item, then, here=now == then or sent, sent=sent) for item in plan["inputs"]]


def _input(entry: Mapping[str, Any], folder: str, *, here: bool, sent: bool) -> InputFile:
    """Return an input under its recorded spelling if that resolves to it, else under its canonical one."""
    uri, place = entry["uri"], entry.get("place", "")
    compression = by_suffix(uri)
    if place and not is_uri(uri) and os.path.isabs(place):
        leads = os.path.normpath(os.path.join(folder, uri)) == place or os.path.realpath(uri) == place
        if not (leads or sent) or not (here or os.path.isabs(uri)):
            uri = place
    return InputFile(uri, entry["size"], entry["version"], compression, "" if place == uri else place)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse to resume an output of another function or of other options.

    Raises
    ------
    ChangedError
        With the words that say what changed and how to go on.
    """
    for name, what in (("per", "per"), ("format", "format"), ("source", "the source")):
        if before[name] != now[name]:
            change = f"{what} {_told(before[name], now[name])}, and now it is {_told(now[name], before[name])}"
            message = f"{where} was made with {change}: {_FRESH}"
            raise ChangedError(message)
    if now["version"] is None:
        _check_functions(before, now, where)


def _check_functions(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse a function or a value of ``args=`` that differs or cannot be compared."""
    go_on = _go_on(before["version"])
    then, args = before["args"], now["args"]
    names = sorted(name for name in then.keys() | args.keys() if then.get(name) != args.get(name))
    if names:
        message = f"{where} was made with another value of args={', '.join(names)}: {go_on}"
        raise ChangedError(message)
    for name, digits in args.items():
        if digits.startswith(_UNKNOWN):
            why = digits.removeprefix(_UNKNOWN)
            message = f"cannot tell whether {where} was made with this value of args={name}: {why}; {go_on}"
            raise ChangedError(message)
    name = now["function"]["name"]
    if before["fingerprint"] != now["fingerprint"]:
        also = ", or its setup=," if now["setup"] else ""
        message = f"the function {name}{also} has changed since it made {where}{_upgrades(before, now)}: {go_on}"
        raise ChangedError(message)
    if now["fingerprint"].startswith(_UNKNOWN):
        why = now["fingerprint"].removeprefix(_UNKNOWN)
        message = f"cannot tell whether the function {name} has changed since it made {where}: {why}; {go_on}"
        raise ChangedError(message)


def _upgrades(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return another possible cause: a changed version of Python or of a package that the function uses."""
    then = {"Python": before["python"], **before["packages"]}
    versions = {"Python": now["python"], **now["packages"]}
    other = [
        f"{name}: {then[name]} then, {versions[name]} now"
        for name in then
        if then[name] != versions.get(name, then[name])
    ]
    return f" (or it is {'; '.join(other)})" if other else ""


_FRESH = "run the job with fresh=True (--fresh) to make all of it again"


def _go_on(version: str | None) -> str:
    name = next_version(version)
    option = shlex.quote(name)
    return (
        f"{_FRESH}, or a name for the new one, version={name!r} (--version {option}), to keep what is done and "
        "go on with it"
    )


def _told(value: Any, other: Any) -> str:
    """Describe a value; of options, only those that differ from another value's."""
    if not isinstance(value, dict):
        return repr(value)
    differing = [name for name in value if name not in other or value[name] != other[name]]
    return ", ".join(f"{name}={value[name]!r}" for name in differing)


def merged_inputs(
    before: Sequence[InputFile], now: Sequence[InputFile], where: str, folder: str
) -> tuple[InputFile, ...]:
    """Return the inputs of earlier runs in their current state, then the new ones.

    One that is gone stays in the list: what was made of it is part of the output.

    Raises
    ------
    ChangedError
        If one has changed since.
    """
    known = {item.identity: item for item in now}
    here = {item.identity: known.get(item.identity) or known.get(_moved(item.identity, folder)) for item in before}
    for item in before:
        present = here[item.identity]
        if present is not None and (present.size, present.version) != (item.size, item.version):
            change = f"the input {printable(item.uri)} has changed since {where} was made of it"
            message = f"{change} ({difference(item, present)}): {_FRESH}"
            raise ChangedError(message)
    old = {present.identity for present in here.values() if present is not None}
    return (
        *(_under(item.identity, here[item.identity]) or item for item in before),
        *(item for item in now if item.identity not in old),
    )


def _under(identity: str, item: InputFile | None) -> InputFile | None:
    """Return an input under its identity in the ledger."""
    return item and item._replace(place="" if identity == item.uri else identity)


def _moved(identity: str, folder: str) -> str:
    """Return the identity of an input here, if Ray sent the folder that relative paths start from."""
    here = os.getcwd()
    if is_sent(here) and not is_sent(folder):
        return identity.removeprefix(f"{folder}/")
    if is_sent(folder) and not is_sent(here) and not is_uri(identity):
        return os.path.join(here, identity)
    return identity


def difference(before: InputFile, now: InputFile) -> str:
    """Describe how an input has changed."""
    if now.version.startswith(UNKNOWN_VERSION):
        return "its records cannot be compared with those of then"
    if before.size != now.size:
        return f"size {before.size} then, {now.size} now"
    return "it was written to, or other content took its place"
