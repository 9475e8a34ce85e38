"""The wheel holds everything, and runs where the repository is not."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import deradiff

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
WHERE = "import deradiff; print(deradiff.__file__)"


class Release(NamedTuple):
    """A wheel and the folder that it is installed in."""

    wheel: Path
    site: Path

    def metadata(self) -> list[str]:
        return next(self.site.glob("deradiff-*.dist-info/METADATA")).read_text(encoding="utf-8").splitlines()

    def requirements(self) -> list[Requirement]:
        """What the package and its extras need."""
        lines = (line.partition(": ") for line in self.metadata())
        return [Requirement(value) for name, _, value in lines if name == "Requires-Dist"]


def pins(file: str) -> dict[str, str]:
    """The version of each package in a file of constraints."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def python(*words: str, folder: Path, path: str = "") -> str:
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Built from a copy by the installed setuptools: nothing is fetched, and the repository stays as it is."""
    tree, site = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("site")
    for part in PARTS:
        shutil.copy(ROOT / part, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    wheel = tree / python("-c", BUILD, ".", folder=tree).splitlines()[-1]
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site))
    python(*install, str(wheel), folder=tree)
    return Release(wheel, site)


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(release: Release) -> None:
    files = {path for path in (ROOT / "src/deradiff").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT / "src").as_posix() for path in files}
    with zipfile.ZipFile(release.wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {Path(name).suffix for name in packed} >= {".html", ".css", ".json", ".safetensors", ".typed"}


def test_it_runs_outside_of_the_repository(release: Release, tmp_path: Path) -> None:
    site = str(release.site)
    assert Path(python("-c", WHERE, folder=tmp_path, path=site)).parents[1] == release.site
    version = getattr(deradiff, "__version__")  # noqa: B009  # lazy
    assert version in python("-m", "deradiff", "--version", folder=tmp_path, path=site)


def test_its_metadata_names_license_types_and_what_is_needed(release: Release) -> None:
    lines = release.metadata()
    assert "License-Expression: Apache-2.0" in lines
    assert "Classifier: Typing :: Typed" in lines
    assert {one.name for one in release.requirements() if one.marker is None} >= {
        "torch",
        "diffusers",
        "transformers",
        "peft",
    }
    entries = next(release.site.glob("deradiff-*.dist-info/entry_points.txt")).read_text()
    assert "deradiff = deradiff.cli:main" in entries
    assert "[deradiff.rewards]" in entries


def test_tested_versions_are_allowed_and_pin_everything_that_is_asked_for(release: Release) -> None:
    tested = pins("constraints.txt")
    for one in release.requirements():
        assert one.specifier.contains(tested[canonicalize_name(one.name)]), one


def test_lowest_versions_are_the_bounds(release: Release) -> None:
    lowest = pins("constraints-min.txt")
    needed = [one for one in release.requirements() if one.marker is None or "optuna" in str(one.marker)]
    assert set(lowest) == {canonicalize_name(one.name) for one in needed}
    for one in needed:
        assert f">={lowest[canonicalize_name(one.name)]}" in str(one.specifier).split(","), one


def test_the_citation_is_of_this_version(release: Release) -> None:
    version = next(line.partition(": ")[2] for line in release.metadata() if line.startswith("Version: "))
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
