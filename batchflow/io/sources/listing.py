"""Lists the files that paths, folders, globs and URIs stand for: each once, whatever leads to it.

An output of batchflow is known by the metadata folder next to it. What a job writes is never its own
input. The output of another job is read if a path or pattern matches it or its files, and left out of the
folders above it, whatever else is in them.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.core.chunks import InputFile
from batchflow.core.text import printable
from batchflow.errors import DestinationError, InputError
from batchflow.io.sources.base import Listing
from batchflow.io.sources.compression import by_suffix
from batchflow.io.sources.paths import irregular
from batchflow.io.stores import META, Place, Uri, filesystem, is_uri, meta_of

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_MAGIC = re.compile(r"[*?[]")
_PACKAGE = "_ray_pkg_"
"""In the name of a folder that Ray unpacks for a job, another one for each."""
_SENT = re.compile(rf".*/{_PACKAGE}[^/]*/(.+)", re.DOTALL)


class _Found(NamedTuple):
    """A file in a listing."""

    item: InputFile
    output: str = ""
    """Output of batchflow that holds it, below the folder that a path or pattern matches."""
    node: tuple[int, int] | None = None
    """Device and inode."""


def list_inputs(paths: Iterable[str], output: Place | None = None) -> Listing:
    """List the files that paths, folders, globs and URIs stand for.

    Order is that of the paths, in a folder or glob that of the names. A file counts once, whatever spelling
    or link leads to it. In folders, names that start with ``_`` or ``.`` are left out.

    Parameters
    ----------
    output
        Of the job that reads them, which is none of its inputs.

    Raises
    ------
    InputError
        If a path matches no file or only outputs of other jobs, or cannot be listed.
    DestinationError
        If a path is in the output.
    """
    own = _Own(output)
    inputs: dict[str, InputFile] = {}
    left_out: dict[str, str] = {}  # outputs, each with one of its files
    for path in paths:
        own.refuse(path)
        found = list(_remote(path) if is_uri(path) else _local(path, own))
        if not found:
            raise InputError(_nothing(path))
        apart = [one for one in found if not own.holds(one)]
        if not apart:
            raise own.refusal(path)
        left_out.update((one.output, one.item.identity) for one in apart if one.output)
        read = [one for one in apart if not one.output]
        if not read:
            raise InputError(_only_outputs(path, next(iter(left_out))))
        for one in _each_once(read):
            inputs.setdefault(one.identity, one)
    if not inputs:
        message = "no input: the list of paths is empty"
        raise InputError(message)
    return Listing(list(inputs.values()), tuple(name for name, file in left_out.items() if file not in inputs))


def describe(path: str) -> InputFile | None:
    """Return a file by its name as it is now, ``None`` if it is gone."""
    try:
        if is_uri(path):
            return next((one.item for one in _remote(path) if one.item.uri == path), None)
        status = os.stat(path)
        return None if stat.S_ISDIR(status.st_mode) else _file(path, canonical(path), status).item
    except (OSError, ValueError, InputError):
        return None


def canonical(path: str) -> str:
    """Return the one name of a file, by which it is known whatever spelling or link leads to it."""
    return _place_of(os.path.realpath(path))


def is_sent(path: str) -> bool:
    """Whether a path is in a folder that Ray unpacked for a job."""
    return _PACKAGE in path


def _place_of(real: str) -> str:
    """Return the canonical name of a file whose path holds no link."""
    sent = _SENT.fullmatch(real) if is_sent(real) else None
    return sent[1] if sent else real


def _each_once(found: list[_Found]) -> list[InputFile]:
    """Return files in the order of their names, each under its own name rather than that of a link."""
    known: dict[str, InputFile] = {}
    for one in found:
        before = known.get(one.item.identity)
        if before is None or (_is_link(before), before.uri) > (_is_link(one.item), one.item.uri):
            known[one.item.identity] = one.item
    return sorted(known.values(), key=lambda item: item.uri)


def _is_link(item: InputFile) -> bool:
    return bool(item.place) and os.path.abspath(item.uri) != item.place


def _nothing(path: str) -> str:
    where = f" (looked in {os.getcwd()})" if not is_uri(path) and not os.path.isabs(path) else ""
    if path == "-":
        return "'-' is not standard input: inputs are read more than once, so write its data to a file first"
    if not is_uri(path) and os.path.isdir(path):
        return f"the folder {path!r} holds no files{where}"
    if _MAGIC.search(path):
        return f"no file matches {path!r}{where}"
    return f"{path!r} does not exist{where}"


def _only_outputs(path: str, output: str) -> str:
    what = f"the folder {path!r} holds only outputs of other jobs"
    return f"{what}, which are read if they are named: {output!r}, or {path.rstrip('/') + '/**'!r} for all"


def _cannot_list(path: str, error: Exception) -> InputError:
    why = (isinstance(error, OSError) and error.strerror) or error
    return InputError(f"cannot list {path!r}: {why}")


# --- the output of the job itself -----------------------------------------------------------------------


class _Own:
    """The output of a job, as its inputs may meet it."""

    def __init__(self, output: Place | None) -> None:
        self._output = output
        self._roots = () if output is None else tuple(f"{root}/" for root in (output, meta_of(output)))
        self.node = None if output is None or isinstance(output, Uri) else _node(str(output))
        self._known: dict[str, bool] = {}
        self._reals: dict[str, str] = {}

    def real(self, path: str) -> str:
        """Return a path without links; those of its folder are looked for once."""
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in self._reals:
            self._reals[folder] = os.path.realpath(folder)
        return os.path.join(self._reals[folder], name)

    def holds(self, one: _Found) -> bool:
        """Whether a file belongs to the output."""
        if self._output is None:
            return False
        at = one.item.identity + "/"
        return at.startswith(self._roots) or (self.node is not None and one.node == self.node)

    def refuse(self, path: str) -> None:
        """Raise `DestinationError` if a path that was named leads into the output."""
        if self._output is None or is_uri(path) != isinstance(self._output, Uri):
            return
        at = canonical_uri(_root_of(path)) if is_uri(path) else self.real(_root_of(path))
        if f"{at}/".startswith(self._roots) or (self.node is not None and self._is_below(at)):
            raise self.refusal(path)

    def _is_below(self, folder: str) -> bool:
        """Whether a folder is the output or in it, by inode: another case of letters, or another mount."""
        if folder not in self._known:
            above = os.path.dirname(folder)
            self._known[folder] = _node(folder) == self.node or (above != folder and self._is_below(above))
        return self._known[folder]

    def refusal(self, path: str) -> DestinationError:
        """Return the refusal of an output that is read by its own job."""
        what = f"the input {printable(path)} is read from there"
        return DestinationError(f"cannot write to {self._output}: {what}; choose another output")


def _node(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _root_of(path: str) -> str:
    """Return what of a path is named: all of it, or the folder that its pattern starts in."""
    if not _MAGIC.search(path) or (not is_uri(path) and os.path.lexists(path)):
        return path.rstrip("/") or "/"
    fixed = _MAGIC.split(path, maxsplit=1)[0]
    return fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")


def place_of_root(path: str) -> str:
    """Return the canonical place that a path names: a file or folder, of a pattern the folder it starts in."""
    root = _root_of(path)
    return canonical_uri(root) if is_uri(path) else os.path.realpath(root)


# --- on this machine ------------------------------------------------------------------------------------


def _local(path: str, own: _Own) -> Iterator[_Found]:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if _MAGIC.search(path):
            yield from _FolderWalk(own).matches(path)
        return
    except (OSError, ValueError) as error:  # forbidden, a loop of links, too long, a zero byte
        raise _cannot_list(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        yield from _FolderWalk(own).files(_Folder(path, os.path.realpath(path)))
        return
    if kind := irregular(status.st_mode):
        message = f"cannot read {path!r}: it is {kind}, not a file; write its data to a file first"
        raise InputError(message)
    if path.startswith(("/dev/", "/proc/")):  # where a name means another file to another process
        path = os.path.realpath(path)
    yield _file(path, own.real(path), status)


def _file(path: str, real: str, status: os.stat_result | None = None, output: str = "") -> _Found:
    """Return a file with what is known of it; if it is not there, reading it tells what is wrong."""
    place = _place_of(real)
    place = "" if place == path else place
    try:
        status = status or os.stat(path)
    except OSError:
        return _Found(InputFile(path, 0, "", by_suffix(path), place), output)
    item = InputFile(path, status.st_size, str(status.st_mtime_ns), by_suffix(path), place)
    return _Found(item, output, (status.st_dev, status.st_ino))


class _Folder(NamedTuple):
    path: str
    """As it was named, ``""`` for the working directory."""
    real: str
    """Without links."""
    output: str = ""
    """Output of batchflow that it is in."""

    def entries(self) -> list[tuple[os.DirEntry[str], _Folder]]:
        """Return what is in the folder by name, each with its paths."""
        entries = _scan(self.path)
        outputs = {
            entry.name[1 : -len(META)]
            for entry in entries
            if entry.name.startswith(".") and entry.name.endswith(META) and _is_folder(entry)
        }
        base = self.real.rstrip("/")
        return [(entry, self._below(entry, base, outputs)) for entry in entries]

    def _below(self, entry: os.DirEntry[str], base: str, outputs: set[str]) -> _Folder:
        path = entry.path if self.path else entry.name
        real = os.path.realpath(path) if entry.is_symlink() else f"{base}/{entry.name}"
        return _Folder(path, real, self.output or (path if entry.name in outputs else ""))


class _FolderWalk:
    """Walks through folders, each once: links to folders come last, so that files have their own names."""

    def __init__(self, own: _Own) -> None:
        self._own = own

    def files(self, top: _Folder, hidden: tuple[str, ...] = ("_", ".")) -> Iterator[_Found]:
        """Yield the files below a folder, without hidden ones."""
        for _, entries in self._folders(top, hidden):
            for entry, below in entries:
                if not entry.name.startswith(hidden) and not _is_folder(entry):
                    yield _file(below.path, below.real, None, below.output)

    def _folders(self, top: _Folder, hidden: tuple[str, ...]) -> Iterator[tuple[_Folder, list[Any]]]:
        """Yield a folder and those below it with their entries, each once, without the output of the job."""
        seen: set[tuple[int, int] | None] = {None, self._own.node}
        seen |= {_node(str(above)) for above in Path(top.real).parents}  # links to these lead nowhere new
        waiting, links = deque([top]), deque[_Folder]()
        while waiting or links:
            folder = (waiting or links).popleft()
            node = _node(folder.path or ".")
            if node in seen:
                continue
            seen.add(node)
            entries = folder.entries()
            yield folder, entries
            for entry, below in entries:
                if not entry.name.startswith(hidden) and _is_folder(entry):
                    (links if entry.is_symlink() else waiting).append(below)

    def matches(self, pattern: str) -> Iterator[_Found]:
        """Yield the files that match a pattern, and those below folders that do."""
        root = _root_of(pattern)
        named = root != "." or pattern.startswith("./")
        parts = (pattern[len(root) :] if named else pattern).split("/")
        top = _Folder(root if named else "", os.path.realpath(root))
        yield from self._below(top, [part for part in parts if part not in ("", ".")])

    def _below(self, folder: _Folder, parts: list[str]) -> Iterator[_Found]:
        """Yield what matches the parts of a pattern below a folder."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            if not rest:
                yield from (one._replace(output="") for one in self.files(folder, (".",)))
                return
            for below, entries in self._folders(folder, (".",)):
                if _MAGIC.search(rest[0]) and rest[0] != "**":
                    yield from self._among(entries, rest)
                else:
                    yield from self._below(below, rest)
        elif not _MAGIC.search(part):
            path = os.path.join(folder.path, part)
            yield from self._match(_Folder(path, os.path.realpath(path), folder.output), rest)
        else:
            yield from self._among(folder.entries(), parts)

    def _among(self, entries: list[Any], parts: list[str]) -> Iterator[_Found]:
        """Yield what matches the parts of a pattern among the entries of a folder."""
        part, rest = parts[0], parts[1:]
        matched = re.compile(fnmatch.translate(part)).match
        for entry, below in entries:
            if matched(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                yield from self._match(below, rest)

    def _match(self, found: _Folder, rest: list[str]) -> Iterator[_Found]:
        """Yield a match: a file, what is below a folder, or what matches the rest of the pattern there."""
        found = found._replace(output="")  # it is named by the pattern
        try:
            status = os.stat(found.path)
        except OSError:
            status = None
        if status is not None and stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) == self._own.node:
                yield _Found(InputFile(found.path, place=found.real), "", self._own.node)  # so that it is refused
            elif rest:
                yield from self._below(found, rest)
            else:
                yield from self.files(found)
        elif not rest and (status is not None or os.path.lexists(found.path)):
            yield _file(found.path, found.real, status)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """Return what is in a folder by name; nothing if it has gone meanwhile."""
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _cannot_list(folder or ".", error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: reading it tells
        return False


# --- at an object store ---------------------------------------------------------------------------------


def _remote(uri: str) -> Iterator[_Found]:
    from pyarrow.fs import FileSelector, FileType

    root = _root_of(uri)
    try:
        system, path = filesystem(uri)
        info = system.get_file_info(path)
        if info.type == FileType.File:
            yield _Found(_object(uri, info))
            return
        system, path = filesystem(root)
        listing = system.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:
        raise _cannot_list(uri, error) from error
    wanted = re.compile(_translate(uri)) if _MAGIC.search(uri) else None
    names = {entry.path: entry.path[len(path.rstrip("/")) + 1 :] for entry in listing}
    outputs = _outputs_of(names.values())
    for entry in sorted(listing, key=lambda entry: entry.path):
        name = names[entry.path]
        full = f"{root}/{name}"
        visible = not any(part.startswith(("_", ".")) for part in name.split("/"))
        if entry.type == FileType.File and (wanted.fullmatch(full) if wanted else visible):
            output = "" if wanted else next((above for above in _folders_of(name) if above in outputs), "")
            yield _Found(_object(full, entry), output and f"{root}/{output}")


def _folders_of(name: str) -> Iterator[str]:
    """Yield the folders that hold a name, outermost first, and the name itself."""
    parts = name.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


def _outputs_of(names: Iterable[str]) -> set[str]:
    """Return the outputs among names: those with a metadata folder next to them."""
    found = set()
    for name in names:
        for folder in _folders_of(name.rpartition("/")[0]):
            above, slash, last = folder.rpartition("/")
            if last.startswith(".") and last.endswith(META):
                found.add(f"{above}{slash}{last[1 : -len(META)]}")
    return found


def _object(uri: str, info: FileInfo) -> InputFile:
    """Return an object as an input; its time in whole seconds, since stores tell more of them in lists only."""
    version = str(info.mtime_ns // 10**9 * 10**9) if info.mtime_ns else ""
    place = canonical_uri(uri)
    return InputFile(uri, info.size or 0, version, by_suffix(uri), "" if place == uri else place)


def canonical_uri(uri: str) -> str:
    """Return the one spelling of a URI: scheme in small letters, no slash at the end."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def _translate(pattern: str) -> str:
    """Return a glob as a regular expression: ``**`` crosses folders, ``*`` and ``?`` do not; none is hidden."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    meanings = {
        "**/": r"(?:(?!\.)[^/]+/)*",
        "**": r"(?:(?!\.)[^/]+/)*(?!\.)[^/]*",
        "*": "[^/]*",
        "?": "[^/]",
    }
    made = ""
    for part in parts:
        plain = part not in meanings and not part.startswith("[")
        if not plain and part[:2] != "**" and made.endswith("/"):
            made += r"(?!\.)"
        made += re.escape(part) if plain else meanings.get(part) or part.replace("[!", "[^")
    return made
