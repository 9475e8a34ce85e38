"""Every stage of the build runs, and what it writes is a pipeline and an anchor that diffusers loads."""

import sys
from pathlib import Path

import pytest
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file

from deradiff import testbed
from deradiff.anchor.source import card_of
from deradiff.testbed import build


def test_quick_build_runs_every_stage_and_skips_finished_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["build", "--out", str(tmp_path), "--quick"])
    build.main()
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    names = load_file(tmp_path / "pipeline" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)  # as published ones, which old versions know too
    assert names.keys() == load_file(testbed.pipeline_path() / "text_encoder" / "model.safetensors").keys()
    (anchor,) = (tmp_path / "anchors").iterdir()
    pipe.load_lora_weights(str(anchor))
    assert card_of(anchor)["beta"] == 0.05
    (image,) = pipe("a red circle", num_inference_steps=2, output_type="pt", return_dict=False)[:1]
    assert image.shape == (1, 3, 64, 64)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors") if "unet" in path.parts}
    build.main()
    assert written == {path: path.stat().st_mtime_ns for path in written}
