"""JSON Lines: a record is what is on one line, most often a dict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from batchflow.sources.lines import Lines
from batchflow.sources.signature import NotTextError
from batchflow.sources.text import LineSource, line_decoder

_CURE = (
    "use one line for each record: jq -c '.[]' FILE > FILE.jsonl for an array, "
    "jq -c . FILE > FILE.jsonl for objects"
)
_LOOK_LINES = 10_000
"""Lines that one record is looked for in, where the first line alone is none."""


@dataclass(frozen=True)
class JsonSource(LineSource):
    """JSON Lines files; blank lines are no records."""

    kind: ClassVar[str] = "json"
    unit: ClassVar[str] = "JSON Lines"
    skips_blank: ClassVar[bool] = True

    def decoders(self) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
        """Return the decoder of `msgspec`, and one that accepts what Python's `json` accepts."""
        import msgspec  # on the worker only: the driver need not wait for it

        text = line_decoder(self.encoding)
        fast = msgspec.json.Decoder().decode

        def quick(line: bytes) -> Any:
            return fast(text(line))

        def decode(line: bytes) -> Any:
            try:
                return fast(line if text is bytes.decode else text(line))
            except msgspec.MsgspecError:
                # NaN, Infinity, lone surrogates: json decides, and explains what it refuses.
                return json.loads(text(line), parse_float=_finite)

        return (fast if text is bytes.decode else quick), decode

    def check_start(self, lines: Lines) -> None:
        """Refuse an array, and objects that take several lines each: no line of such files is a record."""
        at = next((at for at, text in enumerate(lines.texts) if text.strip()), None)
        if at is None or lines.texts[at].lstrip()[:1] not in (b"[", b"{"):
            return
        decode = self.decoders()[1]
        first = lines.texts[at].strip()
        try:
            record = decode(first)
        except (ValueError, RecursionError):
            self._check_shape(lines.texts[at : at + _LOOK_LINES], first)
            return
        alone = not any(text.strip() for text in lines.texts[at + 1 :])
        if alone and isinstance(record, list) and record and all(isinstance(item, dict) for item in record):
            message = f"this is a JSON array, not JSON Lines: {_CURE}"
            raise NotTextError(message)

    def _check_shape(self, texts: list[bytes], first: bytes) -> None:
        """Refuse a file whose first line is only the beginning of a value."""
        text = line_decoder(self.encoding)
        try:
            line, rest = text(first), "\n".join(map(text, texts)).lstrip()
        except UnicodeDecodeError:
            return
        if not _is_beginning(line):
            return
        if line.startswith("["):
            message = f"this is a JSON array, not JSON Lines: {_CURE}"
            raise NotTextError(message)
        try:
            json.JSONDecoder().raw_decode(rest)
        except json.JSONDecodeError as error:
            if error.pos < len(rest.rstrip()):
                return  # a first line that is damaged
        except RecursionError:
            return
        message = f"this is JSON of several lines for each object, not JSON Lines: {_CURE}"
        raise NotTextError(message)


def _is_beginning(line: str) -> bool:
    """Whether a line is a JSON value as far as it goes."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line)
    except RecursionError:
        return False
    return False


def _finite(text: str) -> float:
    """Return a number of a JSON text, which a float must hold."""
    value = float(text)
    if math.isinf(value):
        message = f"the number {text[:50]} is beyond what a float holds"
        raise ValueError(message)
    return value
