"""``bench``: how fast this machine runs what the project is about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mannlab.errors import ConfigError, choices

USAGE = """usage: mannlab bench [name ...] [options of the benchmark]

Runs benchmarks on this machine, all of them or by name; prints tables, with ratios to other packages where
these are installed, and writes JSON and pictures to outputs/benchmarks. What follows a single name is handed
to it:  mannlab bench sparse time --largest 65536, or mannlab bench dense --help."""


def folder() -> Path:
    """Where the scripts lie: inside an installed package, at the root of a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "benchmarks"
    return inside if inside.is_dir() else here.parent / "benchmarks"


def names() -> dict[str, str]:
    """Benchmarks, and what each measures."""
    scripts = sorted(folder().glob("[!_]*.py"))
    return {
        path.stem: path.read_text(encoding="utf-8").partition('"""')[2].partition("\n")[0] for path in scripts
    }


def main(arguments: list[str]) -> int:
    """Run scripts one after the other; returns the first exit code that is not 0."""
    known = names()
    chosen = [word for word in arguments[:1] if not word.startswith("-")]
    while len(chosen) < len(arguments) and arguments[len(chosen)] in known:
        chosen.append(arguments[len(chosen)])
    rest = arguments[len(chosen) :]
    if not chosen and {"-h", "--help"} & set(rest):
        print(USAGE + "\n\n" + "\n".join(f"  {name:16}{says}" for name, says in known.items()))
        return 0
    for name in chosen:
        if name not in known:
            raise ConfigError(f"There is no benchmark '{name}'.", choices(name, known, "benchmarks"))
    if len(chosen) > 1 and rest:
        raise ConfigError(
            f"'{rest[0]}' cannot be handed to several benchmarks.", "Name one benchmark, then its options."
        )
    for name in chosen or known:
        code = subprocess.run([sys.executable, str(folder() / f"{name}.py"), *rest], check=False).returncode
        if code:
            return code
    return 0
