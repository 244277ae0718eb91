"""JSON Lines: a record is what is on one line, most often a dict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from batchflow.core.chunks import InputFile, Span
from batchflow.core.text import counted
from batchflow.errors import SchemaError
from batchflow.io.arrow.convert import VALUE
from batchflow.io.sources.base import Block, Source
from batchflow.io.sources.csv_types import SAMPLE_FILES, SAMPLE_RECORDS, SHOWN_TYPES, spread
from batchflow.io.sources.file_signature import NotTextError
from batchflow.io.sources.line_reader import LineBlock, bounded_reads
from batchflow.io.sources.text import LineSource, line_decoder, unreadable

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
    types: Mapping[str, str] | None = None
    """Types of columns that were named, as plain values; only tables have columns."""
    batches: bool = field(default=False, compare=False)
    """Whether records become tables."""
    schema: Any = field(default=None, compare=False, repr=False)
    """Columns of every table, which `prepared` infers."""
    sampled: int = field(default=0, compare=False, repr=False)
    """Files whose first records the columns come from."""

    def for_batches(self) -> Source:
        """Return the source for functions of batches."""
        return replace(self, batches=True)

    def prepared(self, inputs: Sequence[InputFile]) -> Source:
        """Return the source with columns inferred from the first 1,000 records of five files, as for CSV."""
        if not self.batches:
            return self
        rows: list[Any] = []
        sampled = 0
        for item in spread(inputs):
            if sampled == SAMPLE_FILES:
                break
            some = self._sample(item)
            sampled += bool(some)
            rows += some
        from batchflow.io.sources.json_types import infer_schema

        schema = infer_schema(rows, self.types or {})
        return replace(self, schema=schema, sampled=sampled) if schema.names else self

    def _sample(self, item: InputFile) -> list[dict[str, Any]]:
        rows: list[Any] = []
        try:
            with bounded_reads():
                for block in super().blocks(Span(item), None):
                    rows += block.rows
                    if len(rows) >= SAMPLE_RECORDS:
                        break
        except (OSError, ValueError):
            pass  # the worker that reads the file reports it; what comes before counts
        return [row if type(row) is dict else {VALUE: row} for row in rows[:SAMPLE_RECORDS]]

    def options(self) -> dict[str, Any]:
        """Return encoding and types as the user named them."""
        return {**super().options(), "types": None if self.types is None else dict(self.types)}

    def learned(self) -> dict[str, Any]:
        """Return the columns."""
        if self.schema is None:
            return {}
        from batchflow.io.sources.json_types import schema_as_text

        return {"schema": schema_as_text(self.schema)}

    def relearned(self, learned: dict[str, Any]) -> Source:
        """Return the source with the columns that an earlier run inferred."""
        if "schema" not in learned:
            return self
        from batchflow.io.sources.json_types import schema_of_text

        return replace(self, schema=schema_of_text(learned["schema"]))

    def summary(self) -> list[tuple[str, str]]:
        """Return the encoding, and the columns of tables."""
        if self.schema is None:
            return super().summary()
        origin = f"from the first {SAMPLE_RECORDS:,} rows of {counted(self.sampled, 'file')}"
        types = [f"{field.name}: {field.type}" for field in self.schema]
        more = f" and {len(types) - SHOWN_TYPES} more" if len(types) > SHOWN_TYPES else ""
        told = f"{', '.join(types[:SHOWN_TYPES])}{more}, {origin if self.sampled else 'from an earlier run'}"
        return [*super().summary(), ("types", told)]

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the lines of one span: as records, or as tables of the columns of the source."""
        for block in super().blocks(span, data):
            yield block if self.schema is None else self._as_table(block)

    def _as_table(self, block: Block) -> Block:
        """Return a block as a table; a record that does not fit the columns is a failure."""
        from batchflow.io.arrow.schema import concat
        from batchflow.io.sources.json_types import Columns

        columns = Columns(self.schema, self.types or {})
        rows = list(block.rows)
        tables: list[Any] = []
        numbers: list[int] = []
        failures = list(block.failures)
        ranges = [(0, len(rows))]
        while ranges:  # halves of what does not fit, in order
            start, stop = ranges.pop()
            try:
                tables.append(columns.table(rows[start:stop]))
                numbers += block.numbers[start:stop]
            except SchemaError as error:
                if stop - start > 1:
                    middle = (start + stop) // 2
                    ranges += [(middle, stop), (start, middle)]
                    continue
                number = block.numbers[start]
                begin, end = block.locate(number)
                place = (begin, begin if end is None else end)
                failures.append(unreadable(block.span, place, number, rows[start], str(error)))
        failures.sort(key=lambda failure: failure.record or 0)
        table = concat(tables) if len(tables) != 1 else tables[0]
        return block._replace(rows=table, numbers=numbers, failures=failures)

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

    def check_start(self, lines: LineBlock) -> None:
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
