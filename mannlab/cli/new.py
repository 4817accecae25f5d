"""``new``: a plugin package with a memory, a controller or a task, or one more of them in such a package."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mannlab import compose, registry
from mannlab.cli import package
from mannlab.errors import ConfigError, choices, require

USAGE = """usage: mannlab new memory|controller|task NAME [--package FOLDER]

Writes a small part that works, to put your own equations in, with its yaml files, its tests and an entry
point: into a new package, the folder NAME or the one that --package names; or into an existing one, if
--package names the folder of its pyproject.toml. No file is overwritten."""

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
SUFFIX = ".tmpl"
LONGEST = 30
# Hydra reads these as numbers; the other words of its grammar, such as null, yaml knows as well.
NUMBERS = ("inf", "nan")


@dataclass(frozen=True)
class Shown:
    """How a new part is tried: its own configuration file, what that says, and the arguments that use it."""

    file: str
    says: str
    arguments: str


SHOWN = {
    "memory": Shown("conf/experiment/{}_copy.yaml", "a training run that it learns in", "experiment={}_copy"),
    "controller": Shown(
        "conf/experiment/{}_copy.yaml", "a training run that it learns in", "experiment={}_copy"
    ),
    "task": Shown("conf/recipe/{}.yaml", "settings that suit it", "task={}"),
}


def main(arguments: list[str]) -> int:
    """Write the files, and say what to type next; returns the exit code."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        return 0
    kind, name, where = read_arguments(arguments)
    check_name(kind, name)
    registry.load_plugins()
    check_free(kind, name)
    folder = Path(where or name)
    into = package.find(folder) if where else None
    if into is None:
        check_folder(folder, where)
        importable = folder.resolve().name.replace("-", "_")
        check_package(importable, where)
        into = package.Package(folder, folder, importable)
        files = render("package", kind, name, into) | render(kind, kind, name, into)
        write(files)
        report(kind, name, into, files, added=False)
        return 0
    files, project = render(kind, kind, name, into), into.with_entry_point(name)
    write(files)
    into.project.write_text(project, encoding="utf-8")
    report(kind, name, into, files, added=True)
    return 0


def read_arguments(arguments: list[str]) -> tuple[str, str, str]:
    """Kind, name and the folder of the package ("" if none is named).

    Raises:
        ConfigError: something is missing or unknown.
    """
    words, where = [], ""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in ("--package", "package"):
            where = value if equals else (rest.pop(0) if rest else "")
            require(bool(where), "--package: a folder is missing.", "Such as --package my_lab.")
        elif word.startswith("-") or equals:
            raise ConfigError(f"new: '{word}' is unknown.", USAGE.partition("\n")[0])
        else:
            words.append(word)
    if len(words) != 2 or words[0] not in registry.ROOMS:
        what = "new: say what, and its name."
        if words and words[0] not in registry.ROOMS:
            what = f"new: there is no kind '{words[0]}'. {choices(words[0], registry.ROOMS, 'kinds')}"
        elif len(words) > 2:
            what = f"new: one name, please: {' '.join(words[1:])}."
        raise ConfigError(what, USAGE.partition("\n")[0])
    return words[0], words[1], where


# ---------------------------------------------------------------------- names


def check_name(kind: str, name: str) -> None:
    """Refuse what cannot be a module, or a value on the command line.

    Raises:
        ConfigError: it is no such name; the hint says one that is.
    """
    import yaml

    proposal = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).strip("_").lower()
    proposal = re.sub(r"^(?=\d)", f"{kind}_", proposal)
    hint = f"Such as {proposal}." if re.fullmatch(r"[a-z]\w*", proposal, re.ASCII) else f"Such as my_{kind}."
    if "-" in name:
        hint += " A hyphen is a minus sign to Python, and the name is also that of a module."
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"'{name}' cannot be a name: letters a-z, digits and _, a letter first.", hint)
    if keyword.iskeyword(name) or not isinstance(yaml.safe_load(name), str) or name in NUMBERS:
        raise ConfigError(f"'{name}' means something else to Python or yaml.", f"Such as {name}_{kind}.")
    if name == kind or name in registry.ROOMS:
        raise ConfigError(f"'{name}' is what it is, and no name.", f"Such as my_{kind}.")
    require(len(name) <= LONGEST, f"'{name}' is too long.", f"At most {LONGEST} letters.")


def check_free(kind: str, name: str) -> None:
    """Refuse a name that is taken.

    Raises:
        ConfigError: by whom.
    """
    taken = [*registry.builtin_names(kind), *registry.names(kind)]
    files = [folder / kind / f"{name}.yaml" for folder in compose.yaml_folders()]
    if name in taken or any(path.is_file() for path in files):
        owner = "mannlab"
        if name not in registry.builtin_names(kind):
            owner = registry.get(kind, name).__module__ if name in registry.names(kind) else "a plugin's yaml"
        raise ConfigError(f"There is a {kind} '{name}' already, of {owner}.", f"Such as my_{name}.")


def check_package(name: str, where: str) -> None:
    """Refuse a package that could not be imported, or that would hide another.

    Raises:
        ConfigError: why.
    """
    from importlib.util import find_spec

    hint = "Name the folder by --package, such as --package my_lab."
    valid = re.fullmatch(r"[a-z][a-z0-9_]*", name) and not keyword.iskeyword(name)
    require(bool(valid), f"--package: '{where}' cannot be a package: '{name}' is no name of one.", hint)
    known = (
        name in ("tests", "conf", "mannlab") or name in sys.stdlib_module_names or find_spec(name) is not None
    )
    require(not known, f"A package '{name}' would hide the one of that name that Python has already.", hint)


def check_folder(folder: Path, where: str) -> None:
    """Refuse to write over anything, or one package into another.

    Raises:
        ConfigError: there is something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "Choose another name, or another folder by --package."
        if not where and package.find(folder) is not None:
            hint = f"To add to that package: --package {folder}."
        elif where:
            hint = "To add to a package, name the folder with its pyproject.toml; to make one, a new folder."
        raise ConfigError(f"There is something at {folder} already; it is left as it is.", hint)
    around = next(
        (up for up in folder.resolve().parents if package.entry_points(up / "pyproject.toml")), None
    )
    if around is not None:
        add = f"--package {'.' if around == Path.cwd() else around}"
        raise ConfigError(
            f"You are inside a plugin package already: {around}.",
            f"To add to it: {add}. A new one belongs elsewhere.",
        )


# ---------------------------------------------------------------------- files


def class_name(kind: str, name: str) -> str:
    """``ring`` is ``RingMemory``, and so is ``ring_memory``."""
    camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return camel if camel.endswith(kind.title()) else camel + kind.title()


def render(template: str, kind: str, name: str, into: package.Package) -> dict[Path, str]:
    """The files of a folder of templates, by their paths, filled in."""
    shown = SHOWN[kind]
    arguments = shown.arguments.format(name)
    words = {
        "kind": kind,
        "name": name,
        "Class": class_name(kind, name),
        "package": into.name,
        "project": into.name.replace("_", "-"),
        "extra": f"{into.name}/{shown.file.format(name)}",
        "extra_says": shown.says,
        "args": arguments,
        "train": f"python -m mannlab {arguments}",
    }
    found = {}
    for path in sorted((TEMPLATES / template).rglob(f"*{SUFFIX}")):
        relative = path.relative_to(TEMPLATES / template).as_posix().removesuffix(SUFFIX)
        top, _, rest = relative.partition("/")
        place = into.source / into.name / rest if top == "PACKAGE" else into.folder / relative
        place = place.with_name(place.name.replace("NAME", name))
        found[place] = Template(path.read_text(encoding="utf-8")).substitute(words)
    return found


def write(files: Mapping[Path, str]) -> None:
    """Write files that are not there yet.

    Raises:
        ConfigError: one is; nothing was written.
    """
    there = [str(path) for path in files if path.exists()]
    require(not there, f"There is already {', '.join(there)}; nothing was written.", "Choose another name.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)


def report(kind: str, name: str, into: package.Package, files: Mapping[Path, str], added: bool) -> None:
    """Print what was written, and what to type next."""
    shown = SHOWN[kind]
    for path in files:
        print(f"wrote    {path}")
    if added:
        print(f"added    the entry point {name} to {into.project}")
    again = "again, for the new entry point" if added else "mannlab then finds it from any folder"
    here = into.folder.resolve() == Path.cwd()
    steps = [
        *([] if here else [(f"cd {into.folder}", "")]),
        ('python -m pip install -e ".[dev]"' if not added else "python -m pip install -e .", again),
        ("python -m pytest", "the contract, and what it must do"),
        (f"python -m mannlab {shown.arguments.format(name)}", "trains it"),
        (f"python -m mannlab list {kind}={name}", "its options"),
    ]
    width = max(len(command) for command, _ in steps)
    print("\nnext")
    for command, why in steps:
        print(f"  {command.ljust(width)}  {'# ' + why if why else ''}".rstrip())
    print(f"\nYour equations go into {into.source / into.name / name}.py")
