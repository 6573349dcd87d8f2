"""deploy/components.py: an image that is started without a command says which there are."""

from __future__ import annotations

import pytest

from deploy.components import COMMANDS, main


def test_the_image_without_a_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to look up how a component is started; nothing was started, says the exit code."""
    assert main() == 2
    told = capsys.readouterr().err
    assert all(command in told for command in COMMANDS)
    assert "python -m wds serve" in COMMANDS
