"""JSON Lines: a record is what stands on one line, most often a dict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from batchflow.sources.text import LineSource


@dataclass(frozen=True)
class JsonSource(LineSource):
    """JSON Lines files; blank lines are no records."""

    kind: ClassVar[str] = "json"
    skips_blank: ClassVar[bool] = True

    def decoders(self) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
        """Return the decoder of `msgspec`, and one that accepts what Python's `json` accepts."""
        import msgspec  # on the worker only: the driver need not wait for it

        fast = msgspec.json.Decoder().decode

        def decode(line: bytes) -> Any:
            try:
                return fast(line)
            except msgspec.MsgspecError:
                # NaN, Infinity, 1e400, lone surrogates: json decides, and explains what it refuses.
                return json.loads(line)

        return fast, decode
