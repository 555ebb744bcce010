"""The files that say what to install agree, and none of them says where this or that machine gets it."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIRED = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-").replace(".", "-")


def constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r'[A-Za-z0-9._-]+==[0-9][^\s;]*(; sys_platform == "linux")?', line), line
    return {name_of(line): re.split("==|;", line)[1] for line in lines}


def tracked_files():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_conda_environment_names_the_packages_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert {line for line in pip if not line.startswith("-")} == {*REQUIRED, *EXTRAS["test"]}
    assert "-c constraints.txt" in pip and "-e ." in pip and environment["channels"] == ["conda-forge"]


def test_constraints_pin_every_package_that_is_needed():
    from packaging.requirements import Requirement

    pinned = constraints()
    for requirement in [*REQUIRED, *EXTRAS["test"], *EXTRAS["ray"]]:
        assert Requirement(requirement).specifier.contains(pinned[name_of(requirement)]), requirement


def test_constraints_pin_what_the_needed_packages_need():
    """Follow the installed metadata: a package that is not pinned would change under us."""
    from packaging.requirements import Requirement

    pinned, seen, waiting = constraints(), set(), [*REQUIRED, *EXTRAS["test"]]
    while waiting:
        requirement = Requirement(waiting.pop())
        extras = requirement.extras or {""}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        key = (name_of(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in pinned, f"{key[0]} is not in constraints.txt"
        try:
            needs = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                need.marker = None
                waiting.append(str(need))


def test_no_file_names_a_package_index_or_a_folder_of_a_machine():
    pattern = re.compile(
        rb"(index-url|find-links)\b\s*[=: ]\s*\S*/|pypi\.org/simple|files\.pythonhosted|/(root|home/\w+)/"
        rb"|file:///(?!\{)|" + re.escape(str(ROOT).encode()) + rb"\b"
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__) or path.stat().st_size > 5_000_000:
            continue
        for match in pattern.finditer(path.read_bytes()):
            found.append(f"{path.relative_to(ROOT)}: {match.group()!r}")
    assert not found


def test_data_files_of_the_package_are_packaged():
    globs = PROJECT["tool"]["setuptools"]["package-data"]["cltmlib"]
    for path in tracked_files():
        inside = path.relative_to(ROOT)
        if inside.parts[0] == "cltmlib" and path.suffix != ".py":
            assert any(inside.relative_to("cltmlib").match(glob.removeprefix("**/")) for glob in globs), inside


def test_every_folder_with_modules_is_a_package():
    for path in tracked_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "cltmlib":
            assert (path.parent / "__init__.py").is_file(), path.parent


@pytest.fixture
def make(tmp_path):
    """Run the Makefile in an empty folder whose only Python is a script that notes what it is asked to do."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    folder, tools = tmp_path / "clone", tmp_path / "tools"
    folder.mkdir(), tools.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for tool in ("sh", "sed", "rm", "mv", "touch", "mkdir", "cat", "cp", "chmod", "find"):
        (tools / tool).symlink_to(shutil.which(tool))

    def run(*words):
        command = [shutil.which("make"), *words]
        return subprocess.run(command, cwd=folder, env={"PATH": str(tools)}, capture_output=True, text=True)

    run.folder, run.tools = folder, tools
    return run


def fake_python(path, log, fail=""):
    path.write_text(f"""#!/bin/sh
echo "$*" >> {log}
case "$*" in
  *"-m venv"*) for last; do :; done; mkdir -p $last/bin; cp {path} $last/bin/python; cp {path} $last/bin/cltm ;;
  *"{fail or "nothing fails"}"*) exit 1 ;;
esac
""")
    path.chmod(0o755)


def test_no_fitting_python_is_one_sentence(make):
    done = make("install")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("No Python 3.11 or 3.12 was found")


def test_half_finished_installation_is_made_anew_and_a_finished_one_left_alone(make, tmp_path):
    log = tmp_path / "log"
    fake_python(make.tools / "python3.11", log, fail="pip install")
    assert make("study").returncode != 0  # the installation fails: nothing is run
    assert "cltm" not in log.read_text() and "run --profile" not in log.read_text()
    assert not (make.folder / ".venv" / ".installed").exists()

    fake_python(make.tools / "python3.11", log)
    log.write_text("")
    done = make("study", "NOTEBOOK=02", "PROFILE=smoke")
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    assert any("-m venv --clear" in call for call in calls)
    assert any("pip install" in call and "-c constraints.txt -e .[test]" in call for call in calls)
    assert calls[-1] == "run --profile smoke --notebook 02"

    log.write_text("")
    assert make("test").returncode == 0
    assert log.read_text().splitlines() == ["-m pytest"]

    os.utime(make.folder / "constraints.txt", (2e9, 2e9))
    log.write_text("")
    make("install")
    assert any("pip install" in call for call in log.read_text().splitlines())
    assert not any("-m venv" in call for call in log.read_text().splitlines())
