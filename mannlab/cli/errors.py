"""What goes wrong, on one screen: what it was, what is allowed, what to do."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mannlab import registry
from mannlab.errors import MannlabError, choices
from mannlab.trees import flat

INTERRUPTED = 130
FULL_ERROR = "HYDRA_FULL_ERROR"
HYDRAS_KEYS = ("hydra", "_self_")
CANNOT_WRITE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)

# What the user had set, while Hydra is made to raise instead of printing and exiting.
_asked: list[str | None] = []


# ---------------------------------------------------------------------- traces


@contextlib.contextmanager
def hydra_raises() -> Iterator[None]:
    """Inside, Hydra lets its exceptions out instead of printing its own version of them."""
    _asked.append(os.environ.get(FULL_ERROR))
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        restore(os.environ)
        _asked.pop()


@contextlib.contextmanager
def users_environment() -> Iterator[None]:
    """Inside, the environment is what the user had, for the job and the processes that it starts."""
    before = os.environ.get(FULL_ERROR)
    restore(os.environ)
    try:
        yield
    finally:
        if before is not None:
            os.environ[FULL_ERROR] = before


def restore(environment: Any) -> None:
    """Put into a mapping of environment variables what the user had in the one that we change."""
    if not _asked:
        return
    environment.pop(FULL_ERROR, None)
    if _asked[-1] is not None:
        environment[FULL_ERROR] = _asked[-1]


def trace_wanted() -> bool:
    """Whether the user asked for stack traces."""
    return (_asked[-1] if _asked else os.environ.get(FULL_ERROR)) == "1"


# ---------------------------------------------------------------------- output


def show(error: BaseException, stream: TextIO | None = None) -> None:
    """Print an error: a panel in a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    what, hint = explain(error)
    console = Console(
        file=stream or sys.stderr, highlight=False, soft_wrap=not (stream or sys.stderr).isatty()
    )
    if not console.is_terminal:
        console.print(Text(f"error: {what}" + "".join(f"\n  {line}" for line in hint.splitlines())))
        return
    body = Text(what, style="bold")
    if hint:
        body.append("\n\n").append(Text(hint, style="not bold"))
    console.print(Panel(body, title="mannlab: error", title_align="left", border_style="red", padding=(0, 1)))


def say(message: str) -> None:
    """One line beside the output proper."""
    print(f"mannlab: {message}", file=sys.stderr, flush=True)


def close_pipes() -> None:
    """After a broken pipe: keep Python from complaining once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def tidy_warnings() -> Iterator[None]:
    """Show each warning as one line, in the log where there is one."""

    def tell(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        text = " ".join(str(message).split())
        if logging.getLogger().hasHandlers():
            logging.getLogger("mannlab").warning("%s", text)
        else:
            say(f"warning: {text}")

    before = warnings.showwarning
    warnings.showwarning = tell
    try:
        yield
    finally:
        warnings.showwarning = before


# ---------------------------------------------------------------------- translation


def explain(error: BaseException) -> tuple[str, str]:
    """What was wrong, and what to do about it."""
    ours = next((link for link in _chain(error) if isinstance(link, MannlabError)), None)
    if ours is not None:
        return ours.what, ours.hint
    found = _from_hydra(error)
    if found is not None:
        return found
    for link in _chain(error):
        if isinstance(link, OSError) and (link.errno in CANNOT_WRITE or _making_folder(link)):
            return _cannot_write(link)
    return _unexpected(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _making_folder(error: OSError) -> bool:
    return any(frame.name in ("mkdir", "makedirs") for frame in traceback.extract_tb(error.__traceback__))


def _cannot_write(error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {error}", "Make room, or write elsewhere: outputs=<folder>."
    return f"Cannot write there: {error}", "Choose a folder that you can write to: outputs=<folder>."


def _unexpected(error: BaseException) -> tuple[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__).resolve().parents[1]
    ours = [f for f in frames if Path(f.filename).is_relative_to(here) or "/tasks/" in f.filename]
    where = (ours or list(frames))[-1:]
    place = f"\nat {where[0].filename}:{where[0].lineno}, in {where[0].name}" if where else ""
    lines = (str(error).strip() or "(no message)").splitlines()
    more = f"\n... ({len(lines) - 12} lines more)" if len(lines) > 12 else ""
    hint = f"This was not foreseen. {FULL_ERROR}=1 before the command shows the whole trace."
    if "OutOfMemory" in type(error).__name__:
        hint = "Try a smaller batch_size (with trainer.accumulate_grad_batches the same step is kept)."
    return f"{type(error).__name__}: " + "\n".join(lines[:12]) + more + place, hint


def _from_hydra(error: BaseException) -> tuple[str, str] | None:
    # Hydra is imported by now if it raised anything.
    if "hydra.errors" not in sys.modules:
        return None
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for link in _chain(error):
        if isinstance(link, YAMLError):
            return f"A yaml file cannot be read: {link}", "Mend it; two spaces make a level, and no tabs."
        if isinstance(link, OverrideParseException):
            return _unparsed(link.override)
        if isinstance(link, MissingConfigException):
            return _missing(link)
    for link in _chain(error):
        found = re.match(r"Could not override '([^']+)'", str(link))
        if found:
            return _unknown_key(found[1], next(_keyed(error), None))
        found = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", str(link))
        if found:
            key, _, value = found[1].partition("=")
            return (
                f"'{found[1]}' names several values.",
                f"To run one job for each: put -m first. As a list: {key}=[{value}]. "
                f"As one text: \"{key}='{value}'\".",
            )
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        said = [str(link).strip() for link in _chain(error) if str(link).strip()]
        what = "\n".join(dict.fromkeys(said[:2])).partition("\n    full_key")[0]
        return what.strip(), "--help lists what there is; --cfg job shows the configuration."
    return None


def _unparsed(override: str) -> tuple[str, str]:
    if override.isidentifier():
        from mannlab.__main__ import COMMANDS  # which imports this module

        if override in COMMANDS:
            return f"'{override}' is a command.", f"It comes first: mannlab {override} ..."
        return (
            f"There is no command '{override}', and it is no key=value either.",
            choices(override, [*COMMANDS, "help"], "commands"),
        )
    return (
        f"'{override}' cannot be read.",
        "Write key=value, without spaces around the '='. Quote what the shell would take apart, and values\n"
        "with special characters once more: 'ckpt_path=\"outputs/a=b\"'. Lists are [1,2,3].",
    )


def _missing(error: Any) -> tuple[str, str]:
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    if not group:
        return str(error).partition("\nConfig search path")[0], "--info searchpath shows where was looked."
    if group == "experiment" and not error.options:
        return f"There is no experiment '{name}'.", "There are none yet."
    hint = f"{choices(name, error.options or (), group)}\n{registry.broken_plugins()}"
    return f"There is no {group} '{name}'.", hint.rstrip()


def _keyed(error: BaseException) -> Iterator[Any]:
    for link in _chain(error):
        if getattr(link, "parent_node", None) is not None:
            yield link


def _unknown_key(key: str, cause: Any) -> tuple[str, str]:
    known: Iterable[str] = ()
    if cause is not None:
        with contextlib.suppress(Exception):
            known = [str(name) for name in cause.parent_node if name not in HYDRAS_KEYS]
    wrong = str(getattr(cause, "key", None) or key.rpartition(".")[2])
    prefix = key[: -len(wrong)].rstrip(".") if key.endswith(wrong) else ""
    parent = str(getattr(cause, "full_key", "") or "").rpartition(".")[0] or prefix
    what = f"{key}: there is no key '{wrong}'" + (f" in {parent}." if parent else ".")
    elsewhere = _elsewhere(wrong, cause)
    hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else choices(wrong, known, "keys")
    if parent.partition(".")[0] in ("optimizer", "scheduler", "callbacks", "logger"):
        hint += f"\nTo hand on an argument that is not listed, put + in front: +{key}=..."
    return what, hint


def _elsewhere(name: str, cause: Any) -> list[str]:
    """The keys of that name in other places of the configuration: ``optimizer.lr`` for ``lr``."""
    from omegaconf import OmegaConf

    with contextlib.suppress(Exception):
        tree = OmegaConf.to_container(cause.parent_node._get_root())
        assert isinstance(tree, dict)
        shown = {str(key): value for key, value in tree.items() if key not in HYDRAS_KEYS}
        return [key for key in flat(shown) if key.endswith(f".{name}")]
    return []
