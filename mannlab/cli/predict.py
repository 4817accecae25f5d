"""``predict``: what a trained run answers to texts, such as their translations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mannlab.cli import evaluate, logs, saved
from mannlab.datasets.parallel import refuse_utf16
from mannlab.errors import ConfigError, DataError
from mannlab.progress import counting

USAGE = """usage: mannlab predict RUN text="..." | file=FILE [out=FILE] [ckpt=best|last|FILE] [key=value ...]

Answers a text, or each line of a file in UTF-8 (file=- reads from standard input), with a run's checkpoint:
translations, where the task is translation. RUN is a run folder (or run=FOLDER), a .ckpt file in one, or
last: the newest run in outputs/. Answers go to standard output, or to out=FILE, one a line.
Overrides are those of eval, such as task.beam=5 or trainer.accelerator=cpu."""

OWN = ("text", "file", "out")
CHUNK = 32  # texts between two moves of the progress bar


def main(arguments: list[str]) -> int:
    """Answer texts; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    own, rest = read_arguments(arguments)
    if not rest:
        raise ConfigError("Which run?", f"{USAGE}\n\n{saved.newest()}")
    word, which, overrides = evaluate.read_arguments(rest)
    texts = read_texts(own)
    target = open_target(own.get("out"))
    run = saved.named(word)
    config, checkpoint = evaluate.prepare(run, which, overrides, rest)
    logs.console("stderr")
    from mannlab.training.predict import Predictor

    predictor = Predictor(config, checkpoint)
    answers: list[str] = []
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    with counting("Answering", len(texts), "texts") if len(chunks) > 1 else nullcontext() as advance:
        for chunk in chunks:
            found = predictor(chunk)
            if target is None:
                print(*found, sep="\n", flush=True)
            answers += found
            if advance is not None:
                advance(len(chunk))
    if target is not None:
        write(target, answers)
        print(f"checkpoint  {checkpoint}\nresult      {target}")
    return 0


def read_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What is ``predict``'s own, and the rest, which is read as ``eval`` does.

    Raises:
        ConfigError: neither a text nor a file is given, or both, or one is empty, or a key is misspelt.
    """
    own, rest = evaluate.own_arguments(arguments, OWN)
    if "text" in own:
        own["text"] = _unquoted(own["text"])
    evaluate.check_given(own, USAGE)
    if ("text" in own) == ("file" in own):
        what = "Give a text or a file, not both." if "text" in own else "Which text?"
        raise ConfigError(what, USAGE)
    return own, rest


def _unquoted(text: str) -> str:
    """A text without the quotes around it, which some shells leave."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1] if quoted else text


def read_texts(own: dict[str, str]) -> list[str]:
    """The texts to answer.

    Raises:
        ConfigError: there is no such file.
        DataError: it is empty or no text in UTF-8.
    """
    if "text" in own:
        return [own["text"]]
    path = own["file"]
    if path != "-" and not Path(path).expanduser().is_file():
        raise ConfigError(
            f"file: there is no file {path}.", "Paths start where you are; file=- is standard input."
        )
    raw = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    refuse_utf16(raw, path)
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{number}: not UTF-8.", "Convert the file: iconv -t UTF-8.") from error
    if not lines[-1]:
        lines.pop()
    if not any(line.strip() for line in lines):
        raise DataError(f"file: {path} is empty.", "Give one text a line.")
    return [line.rstrip("\r") for line in lines]


def open_target(path: str | None) -> Path | None:
    """Where answers go, known to be writable before any time is spent.

    Raises:
        ConfigError: its folder is not there, or it is a folder.
    """
    if path is None:
        return None
    target = Path(path).expanduser()
    if not target.resolve().parent.is_dir():
        raise ConfigError(f"out: there is no folder {target.parent}.", "Make it, or name another file.")
    if target.is_dir():
        raise ConfigError(f"out: {target} is a folder.", "Name a file.")
    return target


def write(target: Path, answers: Sequence[str]) -> None:
    """Answers to a file that appears whole, or not at all."""
    from mannlab.training.checkpoints import replace_file

    text = "".join(f"{answer}\n" for answer in answers)
    replace_file(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
