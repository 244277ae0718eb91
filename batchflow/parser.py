"""The parser of the command line: what `argparse` has, with a guess at what was meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from batchflow.suggesting import did_you_mean


class Help(argparse.HelpFormatter):
    """Leaves texts of several lines, as examples are, as they stand; others are wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Tells what may have been meant by an option or a choice that it does not know.

    An option that a command does not know is told with the name of that command.
    """

    suggest_on_error = False
    """Python does it from 3.14 on, for choices only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Help} | options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments, of which there must be none that is not known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong in one line, and where to read more; the whole usage would hide it."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help tells more)\n")

    def _meant(self, unknown: Iterable[str]) -> str:
        options = [text.partition("=")[0] for text in unknown if text.startswith("--")]
        return did_you_mean(options[0], self._option_string_actions) if options else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices or ()))
            raise
