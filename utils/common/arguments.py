"""Command line arguments: help with defaults, numbers within limits, typed settings."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

Settings = TypeVar("Settings")


MOST = 999_999_999  # of what is counted: names of states have nine digits for their step
MOST_WORKERS = 256  # processes, of which each takes memory, or threads
MAX_SIDE = 16384  # px, of a network's input
LARGEST = 1e30  # of other numbers: fp32 holds up to 3e38
_SHOWN = 40  # characters of a value in a message
_LACKS_VALUE = re.compile(r"argument (\S+): expected (one|at least one) argument")  # argparse's words
_CONTROL = re.compile(r"[\0-\x08\n-\x1f\x7f-\x9f\u2028\u2029]")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's line breaks, and shows the default of each flag whose help does not explain it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if "default:" in text or action.required or default is argparse.SUPPRESS:
            return text
        default = "off" if default is False else " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {default})"


class ArgumentParser(argparse.ArgumentParser):
    """A parser of a command line in which no argument is empty, or has line breaks or other control characters.

    Args:
        description: of the command, with its line breaks.
        prog: how it is called, if not by its file.
    """

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, formatter_class=HelpFormatter)
        self._words: Sequence[str] = ()  # of the command line, for messages

    # argparse has overloads of it; its last one is this.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse values that are empty, have control characters, or give empty lists in Python 3.11; then parse."""
        self._words = args = sys.argv[1:] if args is None else args
        for before, text in zip(("", *args), args, strict=False):
            if not text or (text.startswith("--") and text.endswith("=")):  # as a path it would be the working folder
                self.error(f"{text[:-1] or before}: an argument is empty, perhaps by a shell variable that is not set")
            if text.startswith("-") and text.endswith("=--"):
                self.error(f"{text[:-3]}: expected a value, got '--'")
            if _CONTROL.search(text):
                self.error(f"expected arguments without line breaks and other control characters, got {text!r}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End the program; where a value was taken for a flag by its dash, say how to write it."""
        if lacking := _LACKS_VALUE.match(message):
            for flag, text in zip(self._words, self._words[1:], strict=False):
                known = any(each.startswith(text.partition("=")[0]) for each in self._option_string_actions)
                if flag in lacking[1].split("/") and text.startswith("-") and not known:
                    message += f"; a value that begins with a dash is written {flag}={text}"
        super().error(message)


def folder_name(text: str) -> str:
    """Return a folder's name without the slash that the shell completes it by."""
    return text.rstrip("/")


def whole(least: int, most: int | None = None, limit: int = MOST) -> Callable[[str], int]:
    """Return a type for whole numbers from `least` to `most`; without that to a limit, named where it is exceeded."""
    expected = f"at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"should be a whole number, got {_shown(text)}") from error
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"should be {expected}, got {_shown(text)}")
        if most is None and value > limit:
            raise argparse.ArgumentTypeError(f"should be at most {limit}, got {_shown(text)}")
        return value

    return parse


def real(least: float, above: bool = False, below: float = math.inf, limit: float = LARGEST) -> Callable[[str], float]:
    """Return a type for numbers from `least`, or `above` it, to a limit or to what is `below` another."""
    expected = f"above {least:g}" if above else f"from {least:g} up"
    expected += "" if below == math.inf else f" to below {below:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"should be a number, got {_shown(text)}") from error
        if not (least < value if above else least <= value) or not value < below:
            raise argparse.ArgumentTypeError(f"should be a number {expected}, got {_shown(text)}")
        if value > limit:
            raise argparse.ArgumentTypeError(f"should be at most {limit:g}, got {_shown(text)}")
        return value

    return parse


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... of {len(text)} characters"


def settings_of(kind: type[Settings], arguments: Mapping[str, Any]) -> Settings:
    """Return a dataclass of settings with the values of the arguments that have its fields' names.

    Raises:
        KeyError: a field that no argument has the name of.
    """
    return kind(**{each.name: arguments[each.name] for each in fields(kind)})  # pyright: ignore[reportArgumentType]
