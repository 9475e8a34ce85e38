"""What all cells of a run share: models, scheduler, steps, size, dtype, and how predictions are evaluated."""

import json
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from deradiff.anchor.location import Inside, Location, Name, Text
from deradiff.errors import RunFolderError
from deradiff.validation import ValidatedModel

Ensemble = Literal["auto", "toggle", "separate", "batched"]  # as `deradiff.realign` takes them
Policy = Literal["exact", "reuse", "adaptive", "weights"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

REFRESH = 3  # default of the policy reuse
_MODEL_LOCATION = ("subfolder", "revision", "variant")
_ANCHOR_LOCATION = (*_MODEL_LOCATION, "weight_name")
_LOCATIONS = {*(f"model_{name}" for name in _MODEL_LOCATION), *(f"anchor_{name}" for name in _ANCHOR_LOCATION)}
# What images don't depend on: where models lie (their hashes count), what the anchor's beta is called, diagnostics.
_NOT_OF_AN_IMAGE = {"model", "anchor", *_LOCATIONS, "anchor_beta", "diagnostics"}


class Recipe(ValidatedModel):
    """Everything but prompt, seed, guidance and lam that an image depends on.

    Attributes:
        model: folder, single-file checkpoint or hub id of the pipeline (the reference); a relative path is meant from
            the run folder.
        anchor: folder, file or hub id of the aligned model; likewise.
        model_subfolder: where in the folder or repository the pipeline lies.
        model_revision: branch, tag or commit of a repository on the hub.
        model_variant: of the weights, such as fp16; None takes the plain ones, or the only ones there are.
        anchor_subfolder: as of the model.
        anchor_revision: as of the model.
        anchor_variant: as of the model.
        anchor_weight_name: the anchor's safetensors file, where a folder or repository holds several.
        model_hash: of the content of the model's weights and configs; None where it can't be inferred.
        anchor_hash: likewise.
        anchor_beta: KL strength the anchor was aligned at, where known.
        component: the denoiser, where it can't be inferred.
        scheduler: diffusers class name; None keeps the pipeline's own.
        steps: denoising steps.
        height: pixels; None keeps the pipeline's default.
        width: pixels; None keeps the pipeline's default.
        dtype: of the weights; ``auto`` is what the model's files hold, which a `Run` looks up when it begins.
        batch_size: images through a network at once. Part of the recipe, because other sizes round differently: a
            network always sees this many rows, so an image doesn't depend on what is sampled beside it.
        ensemble: how the models are held, as `deradiff.realign` takes it.
        policy: how predictions are evaluated: ``exact``, or with fewer network calls ``reuse``, ``adaptive``,
            ``weights``.
        refresh: of the policy ``reuse``, every how many steps the anchor is computed.
        target_error: of the policy ``adaptive``, the mean error of final latents that spot checks aim at; 0.01 is 1%.
        diagnostics: record each trajectory's statistics (path KL, ...), for which both models run at every lam.
        particles: K of each image at 0 < lam < 1, of the Feynman–Kac correction; 1 is plain DeRaDiff.

    Raises:
        ConfigError: names each setting that is wrong, what was given and what is expected.
    """

    model: Name = ""
    anchor: Name = ""
    model_subfolder: Inside | None = None
    model_revision: Text | None = None
    model_variant: Text | None = None
    anchor_subfolder: Inside | None = None
    anchor_revision: Text | None = None
    anchor_variant: Text | None = None
    anchor_weight_name: Inside | None = None
    model_hash: str | None = None
    anchor_hash: str | None = None
    anchor_beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    component: str | None = None
    scheduler: str | None = None
    steps: int = Field(default=25, ge=1)
    height: int | None = Field(default=None, ge=8, multiple_of=8)
    width: int | None = Field(default=None, ge=8, multiple_of=8)
    dtype: Dtype = "float32"
    batch_size: int = Field(default=8, ge=1)
    ensemble: Ensemble = "auto"
    policy: Policy = "exact"
    refresh: int | None = Field(default=None, ge=1)
    target_error: float | None = Field(default=None, gt=0, lt=1)
    diagnostics: bool = True
    particles: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _size(self) -> "Recipe":
        if (self.height is None) != (self.width is None):  # pipelines then fall back to their own size for both
            raise ValueError("height and width go together; give both, or neither")
        return self

    @model_validator(mode="after")
    def _locations(self) -> "Recipe":
        if self.anchor_weight_name is not None and self.anchor_variant is not None:
            raise ValueError("anchor_weight_name names one file, and anchor_variant chooses among several; give one")
        return self

    @field_validator("particles")
    @classmethod
    def _particles(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("policy") != "exact":
            raise ValueError("more than one needs both models at every step; choose policy='exact', or leave it out")
        return value

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: Policy, info: ValidationInfo) -> Policy:
        if value == "weights" and info.data.get("ensemble", "auto") != "auto":
            raise ValueError("one network at interpolated weights is no ensemble; leave ensemble out")
        return value

    @field_validator("refresh", "target_error")
    @classmethod
    def _of_the_policy(cls, value: float | None, info: ValidationInfo) -> float | None:
        policy = {"refresh": "reuse", "target_error": "adaptive"}[str(info.field_name)]
        if value is not None and info.data.get("policy") != policy:
            raise ValueError(f"it belongs to policy={policy!r}; choose that policy, or leave {info.field_name} out")
        return value

    @property
    def identity(self) -> str:
        """All that an image depends on, as text; a model without a hash is known by its full name."""
        settings = self.model_dump(exclude=_NOT_OF_AN_IMAGE)
        if self.ensemble == "auto":  # which one that is depends on the anchor
            del settings["ensemble"]
        settings["model_hash"] = self.model_hash or self.full_name("model")
        settings["anchor_hash"] = self.anchor_hash or self.full_name("anchor")
        return json.dumps(settings, sort_keys=True)

    @property
    def model_location(self) -> Location:
        """Where in its folder or repository the model lies."""
        return Location(**{name: getattr(self, f"model_{name}") for name in _MODEL_LOCATION})

    @property
    def anchor_location(self) -> Location:
        """Where in its folder or repository the anchor lies."""
        return Location(**{name: getattr(self, f"anchor_{name}") for name in _ANCHOR_LOCATION})

    def full_name(self, part: Literal["model", "anchor"]) -> str:
        """The name of the model or the anchor, and where in that folder or repository it lies."""
        name, location = getattr(self, part), str(getattr(self, f"{part}_location"))
        return f"{name} ({location})" if location else name

    @property
    def depends_on_lams(self) -> bool:
        """Whether an image depends on the lams that are computed beside it."""
        return self.policy in ("adaptive", "reuse")

    def needs_particles(self, lam: float) -> bool:
        """Whether particles correct anything at a lam: at 0 and 1 they don't, and beyond they do harm."""
        return self.particles > 1 and 0 < lam < 1

    def nfe(self, lam: float) -> int:
        """Network function evaluations of an image at a lam; at most, of a policy that adapts."""
        if self.policy == "weights":
            return self.steps
        if self.policy == "reuse":
            both = {0, *range(1, self.steps, self.refresh or REFRESH), self.steps - 1}  # steps at which both models run
            return self.steps + len(both)
        one = lam in (0, 1) and not self.diagnostics and self.policy == "exact"
        return self.steps * (1 if one else 2) * (self.particles if self.needs_particles(lam) else 1)

    def block_size(self, lam: float) -> int:
        """How many images at such a lam are sampled together."""
        return max(1, self.batch_size // self.particles) if self.needs_particles(lam) else self.batch_size


def check_same_recipe(folder: object, written: Recipe, asked: Recipe) -> None:
    """Check that a run in a folder is of the recipe that is asked for.

    Raises:
        RunFolderError: names each setting that differs.
    """
    if differing := differing_settings(written, asked, "was {}, now {}"):
        raise RunFolderError(f"{folder} holds a run of another recipe ({'; '.join(differing)}); give another --out")


def differing_settings(one: Recipe, other: Recipe, words: str) -> list[str]:
    """Every setting that images depend on and in which two recipes differ, with both values.

    Args:
        one: a recipe.
        other: likewise.
        words: what follows a setting's name, with ``{}`` for each of the two values.
    """
    if one.identity == other.identity:
        return []
    differing = list[str]()
    for name in Recipe.model_fields:
        first, second = getattr(one, name), getattr(other, name)
        if name in ("model_hash", "anchor_hash"):
            part = "model" if name == "model_hash" else "anchor"
            first_name, second_name = one.full_name(part), other.full_name(part)
            if (first or first_name) != (second or second_name):
                why = "with other weights" if second else "whose weights aren't on this machine"
                differing.append(f"the {part} {words.format(first_name, second_name)}, {why}")
        elif name not in _NOT_OF_AN_IMAGE and first != second:
            differing.append(f"{name} {words.format(first, second)}")
    return differing
