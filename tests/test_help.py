"""The help of every command: each flag has one, with its default."""

import re

import pytest

from tests.support.commands import COMMANDS, parser_of


def test_all_commands_are_found():
    assert len(COMMANDS) >= 11


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_shows_its_default(command):
    parser = parser_of(command)
    for action in parser._actions[1:]:  # --help is the first
        text = parser._get_formatter()._expand_help(action)
        assert len(text) > 5, action.dest
        if not action.required:
            (shown, *_) = re.findall(r"\(default: (.+?)\)", text) or [""]
            assert shown, f"{action.dest}: {text}"
            assert "None" not in shown
            assert not re.search(r"[\[(]|\bPosix|False", shown)  # words, not Python's values


def test_the_help_explains_what_skip_bad_images_still_refuses():
    text = " ".join(parser_of("DR_training").format_help().split())
    assert re.search(r"--skip_bad_images .* Refused at the start all the same, since .* header cannot be read", text)


def test_standard_terms():
    text = " ".join(parser_of("DR_training").format_help().split())
    for flag, words in (
        ("--accumulate ACCUMULATE", "micro-batches per optimizer step"),
        ("--eager", "disable CUDA graphs"),
        ("--n_steps N_STEPS", "epochs between two halvings .* of the learning rate"),
        ("--n_epochs N_EPOCHS", "epochs per stage"),
    ):
        assert re.search(f" {flag} {words}", text)
