"""``python -m mannlab [train] overrides…`` and the other commands. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from mannlab.cli import errors

HELP = ("-h", "--help", "help")
COMMANDS = {
    "train": "mannlab.cli.train",
    "eval": "mannlab.cli.evaluate",
    "predict": "mannlab.cli.predict",
    "inspect": "mannlab.cli.inspect",
    "list": "mannlab.cli.listing",
    "new": "mannlab.cli.new",
    "bench": "mannlab.cli.bench",
    "report": "mannlab.cli.report",
    "resume": "mannlab.cli.resume",
}


def choose(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The module of the command that is meant, and its own arguments."""
    first, rest = (arguments[0], list(arguments[1:])) if arguments else ("train", [])
    if first in COMMANDS:
        if first == "train" and any(word in HELP[:2] for word in rest):
            return "mannlab.cli.help", rest
        return COMMANDS[first], rest
    if first == HELP[2] or any(word in HELP[:2] for word in arguments):
        return "mannlab.cli.help", list(arguments)
    if "-sc" in arguments or "--shell-completion" in arguments:
        return "mannlab.cli.complete", list(arguments)
    return COMMANDS["train"], list(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: its arguments; those of the process by default.

    Returns:
        The exit code: 0 if all went well, 130 if the user stopped it, otherwise 1 or 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with errors.tidy_warnings():
        try:
            module, rest = choose(arguments)
            command: Callable[[list[str]], int] = import_module(module).main
            return command(rest)
        except KeyboardInterrupt:
            errors.say("interrupted")
            return errors.INTERRUPTED
        except BrokenPipeError:
            errors.close_pipes()
            return 1
        except Exception as error:
            if errors.trace_wanted():
                raise
            errors.show(error)
            return 1


if __name__ == "__main__":
    sys.exit(main())
