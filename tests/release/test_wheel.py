"""The wheel holds everything, and runs where the repository is not."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

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
    needed = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    assert {one.name for one in needed if one.marker is None} >= {"torch", "diffusers", "transformers", "peft"}
    entries = next(release.site.glob("deradiff-*.dist-info/entry_points.txt")).read_text()
    assert "deradiff = deradiff.cli:main" in entries
    assert "[deradiff.rewards]" in entries
