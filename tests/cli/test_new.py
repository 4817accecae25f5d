"""``new``: plugin packages that work as they are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mannlab import registry
from mannlab.__main__ import main
from mannlab.cli import new, package
from mannlab.errors import ConfigError

KINDS = ("memory", "controller", "task")
# The shortest name, the longest, and one that sorts behind all that is imported.
NAMES = ("a1", "z" * new.LONGEST, "zz_part")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    return tmp_path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with one part of each kind; not to be changed."""
    folder = tmp_path_factory.mktemp("new")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for kind in KINDS:
            assert main(["new", kind, f"my_{kind}", "--package", "lab"]) == 0
    finally:
        os.chdir(before)
    return folder / "lab"


def files(folder: Path) -> dict[str, str]:
    """Everything in a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "outputs", ".ruff_cache", ".mypy_cache"} & set(path.parts)
    }


def checked(command: list[str], cwd: Path, path: Path) -> str:
    """The output of a command that must succeed."""
    paths = {name: str(path) for name in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_and_what_is_said(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", kind, "ring"]) == 0
    extra = "recipe/ring.yaml" if kind == "task" else "experiment/ring_copy.yaml"
    written = files(here / "ring")
    assert set(written) == {
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "ring/__init__.py",
        "ring/ring.py",
        f"ring/conf/{kind}/ring.yaml",
        f"ring/conf/{extra}",
        "tests/test_ring.py",
    }
    assert f'@register("{kind}", "ring")\nclass Ring{kind.title()}(' in written["ring/ring.py"]
    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["entry-points"] == {registry.PLUGIN_GROUP: {"ring": "ring.ring"}}
    said = capsys.readouterr().out
    for path in written:
        assert f"wrote    ring/{path}" in said
    for step in ("cd ring", 'pip install -e ".[dev]"', "-m pytest", f"mannlab list {kind}=ring"):
        assert step in said
    assert ("mannlab task=ring" if kind == "task" else "mannlab experiment=ring_copy") in said
    assert "$" not in "".join(written.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_tidy(name: str, here: Path, root: Path) -> None:
    for kind in KINDS:
        assert main(["new", kind, f"{name[:-2]}{kind[:2]}", "--package", f"lab_{name[:2]}"]) == 0
    checked(["ruff", "check", "--no-cache", "."], here / f"lab_{name[:2]}", root)
    checked(["ruff", "format", "--check", "--no-cache", "."], here / f"lab_{name[:2]}", root)
    # The project's own rules are stricter, but for the order of imports: there mannlab is somebody else's.
    rules = ["--config", str(root / "pyproject.toml"), "--ignore", "I001"]
    checked(["ruff", "check", "--no-cache", *rules, "."], here / f"lab_{name[:2]}", root)


@pytest.mark.slow
def test_what_is_written_is_typed(lab: Path, root: Path) -> None:
    # With the project's own rules, which are stricter than the package's: its cache knows torch already.
    assert "no issues" in checked(["mypy", str(lab / "lab"), str(lab / "tests")], root, lab)


@pytest.mark.slow
def test_its_own_tests_pass_as_they_are(lab: Path, root: Path) -> None:
    assert "10 passed" in checked(["pytest", "-q", "-p", "no:cacheprovider", "-W", "error"], lab, root)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (
            "memory",
            "my-memory",
            ["'my-memory' cannot be a name", "Such as my_memory. A hyphen is a minus sign"],
        ),
        ("memory", "MyMemory", ["cannot be a name", "Such as my_memory."]),
        ("memory", "2fast", ["cannot be a name", "Such as memory_2fast."]),
        ("task", "größe", ["cannot be a name", "Such as my_task."]),
        ("memory", "_x", ["cannot be a name", "Such as x."]),
        ("memory", "a/b", ["cannot be a name", "Such as a_b."]),
        ("task", "class", ["'class' means something else", "Such as class_task."]),
        ("task", "null", ["'null' means something else"]),
        ("task", "yes", ["'yes' means something else"]),
        ("task", "inf", ["'inf' means something else"]),
        ("memory", "memory", ["no name", "Such as my_memory."]),
        ("memory", "x" * 31, ["too long", "At most 30"]),
        ("memory", "dense", ["There is a memory 'dense' already, of mannlab.", "Such as my_dense."]),
        ("task", "copy", ["There is a task 'copy' already"]),
        ("memory", "json", ["A package 'json' would hide", "--package my_lab"]),
        ("memory", "torch", ["A package 'torch' would hide"]),
        ("memroy", "x", ["no kind 'memroy'", "Did you mean 'memory'?", "usage: mannlab new"]),
    ],
)
def test_names_that_are_refused(
    kind: str, name: str, said: list[str], here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", kind, name]) == 1
    message = capfd.readouterr().err
    for part in said:
        assert part in message
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what, and its name"),
        (["memory"], "say what, and its name"),
        (["memory", "a", "b"], "one name, please"),
        (["memory", "a", "--pakage", "b"], "'--pakage' is unknown"),
        (["memory", "a", "--package"], "a folder is missing"),
        (["memory", "a", "slots=3"], "'slots=3' is unknown"),
        (["memory", "a", "--package", "my.lab"], "cannot be a package"),
    ],
)
def test_arguments_that_are_refused(
    words: list[str], said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", *words]) == 1
    assert said in capfd.readouterr().err
    assert not list(here.iterdir())


def test_a_name_of_another_plugin_is_taken(
    here: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "tests" / "plugin_example"))
    registry.load_plugins(["mannlab_ring"])
    assert main(["new", "memory", "ring"]) == 1
    assert "already, of mannlab_ring" in capfd.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--help"]) == 0
    assert "usage: mannlab new memory|controller|task NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("memory", "ring", "RingMemory"),
        ("memory", "ring_memory", "RingMemory"),
        ("task", "tensor", "TensorTask"),
        ("controller", "lstm2", "Lstm2Controller"),
    ],
)
def test_class_names(kind: str, name: str, expected: str) -> None:
    assert new.class_name(kind, name) == expected


# ---------------------------------------------------------------------- folders


def test_hyphens_in_the_folder_are_underscores_in_python(here: Path) -> None:
    assert main(["new", "memory", "ring", "--package=my-lab"]) == 0
    assert (here / "my-lab" / "my_lab" / "ring.py").is_file()
    assert tomllib.loads((here / "my-lab" / "pyproject.toml").read_text())["project"]["name"] == "my-lab"


def test_nothing_is_overwritten(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "memory", "ring"]) == 0
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("years of work")
    before = files(here)
    for words, said in {
        ("memory", "ring"): "To add to that package: --package ring.",
        ("task", "ring"): "To add to that package: --package ring.",
        ("memory", "ring", "--package", "ring"): "There is already ring/ring/ring.py",
        ("task", "ring", "--package", "ring"): "an entry point 'ring' already",
        ("memory", "full"): "There is something at full already",
        ("memory", "other", "--package", "full"): "name the folder with its pyproject.toml",
    }.items():
        assert main(["new", *words]) == 1
        message = capfd.readouterr().err
        assert said in message or "entry point 'ring' already" in message, message
        assert files(here) == before


def test_a_second_part_is_added(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "memory", "ring"]) == 0
    project = here / "ring" / "pyproject.toml"
    project.write_text("# mine\n" + project.read_text().replace("0.1.0", "7.0"))
    before = files(here / "ring")
    os.chdir(here / "ring")
    assert main(["new", "task", "riddle", "--package", "."]) == 0
    after = files(here / "ring")
    assert set(after) - set(before) == {
        "ring/riddle.py",
        "ring/conf/task/riddle.yaml",
        "ring/conf/recipe/riddle.yaml",
        "tests/test_riddle.py",
    }
    assert {path for path in before if before[path] != after[path]} == {"pyproject.toml"}
    old, now = before["pyproject.toml"].splitlines(), after["pyproject.toml"].splitlines()
    place = old.index('ring = "ring.ring"') + 1
    assert now == [*old[:place], 'riddle = "ring.riddle"', *old[place:]]
    said = capsys.readouterr().out
    assert "added    the entry point riddle to pyproject.toml" in said
    assert "again, for the new entry point" in said
    assert "  cd " not in said.rpartition("added")[2]


def test_inside_a_package_it_says_how(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "memory", "ring"]) == 0
    for where, how in {
        here / "ring": "--package .",
        here / "ring" / "ring": f"--package {here / 'ring'}",
    }.items():
        os.chdir(where)
        before = files(here)
        assert main(["new", "task", "riddle"]) == 1
        assert how in capfd.readouterr().err
        assert files(here) == before


def test_a_package_that_is_no_plugin_yet_becomes_one(here: Path) -> None:
    (here / "src" / "study").mkdir(parents=True)
    (here / "src" / "study" / "__init__.py").write_text("")
    (here / "pyproject.toml").write_text('[project]\nname = "study"\nversion = "1"  # of mine')
    assert main(["new", "controller", "gate", "--package", "."]) == 0
    assert (here / "src" / "study" / "gate.py").is_file()
    project = tomllib.loads((here / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.PLUGIN_GROUP] == {"gate": "study.gate"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[project]\nname = 'study'\n[project.entry-points]\n'mannlab.plugins' = {a = 'study'}",
            "Add it yourself",
        ),
        ("[project]\nname = 'study'\nentry-points = {}\n", "Add it yourself"),
        ("[project]\nname = 'other'\n", "has no package 'other'"),
        ("[tool.x]\n", "no [project] with a name"),
        ("[project\n", "cannot be read"),
    ],
)
def test_projects_that_cannot_be_added_to_are_left_alone(
    text: str, said: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "study").mkdir()
    (here / "study" / "__init__.py").write_text("")
    (here / "pyproject.toml").write_text(text)
    before = files(here)
    assert main(["new", "memory", "ring", "--package", "."]) == 1
    assert said in capfd.readouterr().err
    assert files(here) == before


@pytest.mark.parametrize(
    "header",
    ['[project.entry-points."mannlab.plugins"]', "[ project . entry-points . 'mannlab.plugins' ]  # mine"],
)
def test_entry_points_go_behind_the_last_one(header: str, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").write_text("")
    head = '[project]\nname = "study"\n\n'
    tail = "\n# of the next table\n[tool.x]\ny = 1\n"
    project = tmp_path / "pyproject.toml"
    for keys in ("", 'a = "study.a"\n', '# old\na = "study.a"  # first\n\nb = "study.b"\n'):
        project.write_text(f"{head}{header}\n{keys}{tail}")
        found = package.find(tmp_path)
        assert found is not None
        assert found.with_entry_point("ring") == f'{head}{header}\n{keys}ring = "study.ring"\n{tail}'


def test_a_single_module_is_no_package_to_add_to(here: Path) -> None:
    (here / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.entry-points."mannlab.plugins"]\nx = "mannlab_x"\n'
    )
    (here / "mannlab_x.py").write_text("")
    with pytest.raises(ConfigError, match=r"has no package 'mannlab_x'.*\n.*Make one of mannlab_x\.py"):
        package.find(here)


# ---------------------------------------------------------------------- what it does


def test_its_yaml_files_are_found_and_listed(
    lab: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    monkeypatch.syspath_prepend(str(lab))
    monkeypatch.chdir(tmp_path)
    plugins = "plugins=[lab.my_memory,lab.my_task,lab.my_controller]"
    assert main(["list", plugins]) == 0
    page = capsys.readouterr().out
    for kind in KINDS:
        (line,) = (line for line in page.splitlines() if f"{kind}=my_{kind} " in line)
        assert line.endswith(f"(from lab.my_{kind})")
    assert "N, number of slots" in page, "comments of the yaml file are shown"
    assert main(["list", "experiment", "recipe", plugins]) == 0
    page = capsys.readouterr().out
    assert "experiment=my_memory_copy  Copy with memory=my_memory" in page
    assert "recipe=my_task" in page
    assert page.count("(from lab)") == 3


@pytest.mark.slow
def test_presets_experiments_and_recipes_compose(
    lab: Path, program: Callable[..., str], tmp_path: Path
) -> None:
    plugins = "plugins=[lab.my_memory,lab.my_task]"
    shown = program(plugins, "memory=my_memory", "memory.width=3", "task=my_task", "--cfg", "job", before=lab)
    assert "slots: 32\n  width: 3" in shown
    assert "max_steps: 4000" in shown, "the recipe of the plugin's task"
    assert "max_length: 5" in program(plugins, "experiment=my_memory_copy", "--cfg", "job", before=lab)
    assert f"file://{lab}/lab/conf" in program(plugins, "--info", "searchpath", before=lab)
    wrong = program(plugins, "memory=my_memory", "memory.slots=x", "hydra.run.dir=run", before=lab, code=1)
    assert "memory.slots: 'x' is not allowed.\n  allowed: int" in wrong


@pytest.mark.slow
def test_a_sweep_takes_its_yaml_files_along(lab: Path, program: Callable[..., str], tmp_path: Path) -> None:
    short = ["trainer.max_steps=2", "trainer.accelerator=cpu", "hydra.sweep.dir=sweep", "test=false"]
    program(
        "plugins=[lab.my_memory]", "-m", "experiment=my_memory_copy", "memory.slots=4,5", *short, before=lab
    )
    found = [json.loads(path.read_text()) for path in (tmp_path / "sweep").rglob("summary.json")]
    assert sorted(each["config"]["memory"]["slots"] for each in found) == [4, 5]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["controller", "task"])  # a memory does in docs/plugins.md
def test_what_is_written_learns(kind: str, lab: Path, program: Callable[..., str], tmp_path: Path) -> None:
    use = new.SHOWN[kind].arguments.format(f"my_{kind}")
    settings = ["threads=1", "trainer.accelerator=cpu", "hydra.run.dir=run", "callbacks.pictures=null"]
    settings += ["callbacks.stop_when_solved.patience=1", "trainer.limit_test_batches=1"]
    program(f"plugins=[lab.my_{kind}]", use, *settings, before=lab)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "solved"
