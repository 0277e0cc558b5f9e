"""Command line arguments: help with defaults, numbers within limits, typed settings."""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

Settings = TypeVar("Settings")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's line breaks, and shows the default of each flag whose help does not explain it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if "default:" in text or action.required or default is argparse.SUPPRESS:
            return text
        default = "off" if default is False else " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {default})"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for whole numbers from `least` to `most`."""
    expected = f"at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"should be a whole number, got {text!r}") from error
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"should be {expected}, got {text}")
        return value

    return parse


def real(least: float, above: bool = False, below: float = math.inf) -> Callable[[str], float]:
    """Return a type for numbers from `least`, or `above` it, to what is `below` a limit."""
    expected = f"above {least:g}" if above else f"from {least:g} up"
    expected += "" if below == math.inf else f" to below {below:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"should be a number, got {text!r}") from error
        if not (least < value if above else least <= value) or not value < below:
            raise argparse.ArgumentTypeError(f"should be a number {expected}, got {text}")
        return value

    return parse


def settings_of(kind: type[Settings], arguments: Mapping[str, Any]) -> Settings:
    """Return a dataclass of settings with the values of the arguments that have its fields' names.

    Raises:
        KeyError: a field that no argument has the name of.
    """
    return kind(**{each.name: arguments[each.name] for each in fields(kind)})  # pyright: ignore[reportArgumentType]
