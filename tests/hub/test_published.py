"""The list of published anchors: every fact has a source, or is said to be unknown."""

import re

from tests.cli.shell import here

from deradiff.align.convention import PUBLISHED
from deradiff.hub import anchors


def test_each_anchor_is_a_repository_with_sources() -> None:
    names = [anchor.name for anchor in anchors()]
    assert len(set(names)) == len(names)
    for anchor in anchors():
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in (anchor.name, anchor.base))
        assert anchor.form in ("checkpoint", "lora")
        assert anchor.sources
        assert (anchor.beta is None) == (anchor.convention == "unknown")
        assert "arXiv" in anchor.method


def test_betas_of_diffusion_dpo_are_in_a_convention_of_align() -> None:
    published = [anchor for anchor in anchors() if anchor.method.startswith("Diffusion-DPO")]
    assert published
    assert all(anchor.convention in PUBLISHED for anchor in published)


def test_the_command_shows_all_of_it() -> None:
    printed = " ".join(here("anchors").stdout.split())
    for anchor in anchors():
        assert anchor.name in printed
        assert f"base: {anchor.base}" in printed
        assert anchor.licence in printed
    assert "nominal beta: 5000 (sdxl-script)" in printed
    assert "nominal beta: unknown" in printed
