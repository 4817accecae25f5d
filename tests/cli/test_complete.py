"""Tab completion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab.__main__ import COMMANDS, main


@pytest.fixture
def complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str], set[str]]:
    """What a shell would offer after a line."""
    monkeypatch.chdir(tmp_path)

    def ask(line: str) -> set[str]:
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        return set(capsys.readouterr().out.split())

    return ask


def test_groups_choices_and_keys(complete: Callable[[str], set[str]]) -> None:
    assert {"task=", "memory=", "eval", "list"} <= complete("mannlab ")
    assert {"memory=dense", "memory=none"} <= complete("mannlab memory=")
    assert complete("mannlab task=copy task.max_") == {"task.max_length="}
    assert complete("mannlab train task=cop") == {"task=copy"}
    assert complete("mannlab ev") == {"eval", "eval_batch_size="}


def test_choices_of_plugins(
    complete: Callable[[str], set[str]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    assert "memory=ring" not in complete("mannlab memory=")
    assert "memory=ring" in complete("mannlab plugins=[mannlab_ring] memory=")


def test_our_own_commands(complete: Callable[[str], set[str]], tmp_path: Path) -> None:
    (tmp_path / "outputs" / "copy").mkdir(parents=True)
    assert complete("mannlab eval run=out") == {"run=outputs/"}
    assert complete("mannlab eval run=outputs/") == {"run=outputs/copy/"}
    assert complete("mannlab eval outputs/c") == {"outputs/copy/"}
    assert complete("mannlab eval ck") == {"ckpt=best", "ckpt=last"}
    assert complete("mannlab inspect s") == {"sample=", "split=", "steps="}
    assert complete("mannlab insp") == {"inspect"}
    assert complete("mannlab list mem") == {"memory"}
    assert {"by=", "metric=", "to=", "outputs/"} <= complete("mannlab report ")
    assert complete("mannlab report outputs/c") == {"outputs/copy/"}
    assert complete("mannlab report to=out") == {"to=outputs/"}
    assert complete("mannlab rep") == {"report"}
    assert complete("mannlab resume sweep=out") == {"sweep=outputs/"}
    assert complete("mannlab resume fa") == {"failed=keep"}
    assert complete("mannlab bench spar") == {"sparse"}
    assert complete("mannlab new mem") == {"memory"}


def test_every_command_is_offered(complete: Callable[[str], set[str]]) -> None:
    assert set(COMMANDS) <= complete("mannlab ")


def test_what_is_installed_is_for_the_console_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", "install=bash"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("-F hydra_bash_completion mannlab")
