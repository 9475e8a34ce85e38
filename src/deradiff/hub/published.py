"""Published anchors: what is publicly known of aligned models that `deradiff.realign` takes. Looked up, never guessed.

Betas are nominal: those of the published training configurations, each in the units of its own method. Only those of
Diffusion-DPO compare with one another and with `deradiff.align` (docs/align.md); betas of other methods count for
ratios of one anchor alone: lam emulates beta / lam in the same units.
"""

from dataclasses import dataclass

UNKNOWN = "unknown"
_SD15, _SDXL = "runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
_SD35M = "stabilityai/stable-diffusion-3.5-medium"


@dataclass(frozen=True, kw_only=True)
class PublishedAnchor:
    """An aligned model on the hub.

    Attributes:
        name: its repository.
        base: the reference that it was aligned from.
        method: how, with the paper.
        form: ``checkpoint`` or ``lora``.
        beta: nominal KL strength; None where it is unknown, or the method has none.
        convention: of beta: one of `deradiff.align`'s, or in words; ``unknown`` without a beta.
        licence: as its page says.
        sources: where each of these facts stands.
        note: what else one should know.
    """

    name: str
    base: str
    method: str
    form: str
    beta: float | None
    convention: str
    licence: str
    sources: tuple[str, ...]
    note: str = ""


_DPO = "Diffusion-DPO (arXiv 2311.12908)"
_SPO = "SPO (arXiv 2406.04314)"
_SPO_BETA = "of a DPO loss on each denoising step's log-probability ratio"
_GRPO = "Flow-GRPO (arXiv 2505.05470)"
_GRPO_BETA = "weight of the KL loss beside normalised advantages"
_DPO_CODE = "github.com/SalesforceAIResearch/DiffusionDPO"
_SPO_CODE = "github.com/RockeyCoss/SPO: README.md, spo_training_and_inference/configs/basic_config.py"
_GRPO_CODE = "github.com/yifan123/flow_grpo: README.md, config/grpo.py"

_ANCHORS = (
    PublishedAnchor(
        name="mhdang/dpo-sd1.5-text2image-v1",
        base=_SD15,
        method=_DPO,
        form="checkpoint",
        beta=5000,
        convention="sdxl-script",
        licence="openrail++",
        sources=("huggingface.co/mhdang/dpo-sd1.5-text2image-v1", f"{_DPO_CODE}: README.md, launchers/sd15.sh"),
        note="beta_dpo of the launcher that the authors call a replication",
    ),
    PublishedAnchor(
        name="mhdang/dpo-sdxl-text2image-v1",
        base=_SDXL,
        method=_DPO,
        form="checkpoint",
        beta=5000,
        convention="sdxl-script",
        licence="openrail++",
        sources=("huggingface.co/mhdang/dpo-sdxl-text2image-v1", f"{_DPO_CODE}: README.md, launchers/sdxl.sh"),
        note="beta_dpo of the launcher that the authors call a replication",
    ),
    PublishedAnchor(
        name="SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep_LoRA",
        base=_SD15,
        method=_SPO,
        form="lora",
        beta=10,
        convention=_SPO_BETA,
        licence="apache-2.0",
        sources=("huggingface.co/SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep_LoRA", _SPO_CODE),
    ),
    PublishedAnchor(
        name="SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA",
        base=_SDXL,
        method=_SPO,
        form="lora",
        beta=10,
        convention=_SPO_BETA,
        licence="apache-2.0",
        sources=(
            "huggingface.co/SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA",
            f"{_SPO_CODE}, configs/spo_sdxl_4k-prompts_num-sam-2_3-is_10ep_bs2_gradacc2.py",
        ),
    ),
    PublishedAnchor(
        name="mapo-t2i/mapo-beta",
        base=_SDXL,
        method="MaPO (arXiv 2406.06424)",
        form="checkpoint",
        beta=None,
        convention=UNKNOWN,
        licence="openrail++",
        sources=("huggingface.co/mapo-t2i/mapo-beta",),
        note="trained without a reference: it has no KL strength, so lam mixes but emulates no beta",
    ),
    PublishedAnchor(
        name="jieliu/SD3.5M-FlowGRPO-PickScore",
        base=_SD35M,
        method=_GRPO,
        form="lora",
        beta=0.01,
        convention=_GRPO_BETA,
        licence=UNKNOWN,
        sources=(f"{_GRPO_CODE} (pickscore_sd3)",),
    ),
    PublishedAnchor(
        name="jieliu/SD3.5M-FlowGRPO-Text",
        base=_SD35M,
        method=_GRPO,
        form="lora",
        beta=0.04,
        convention=_GRPO_BETA,
        licence=UNKNOWN,
        sources=(f"{_GRPO_CODE} (general_ocr_sd3)",),
    ),
    PublishedAnchor(
        name="jieliu/SD3.5M-FlowGRPO-GenEval",
        base=_SD35M,
        method=_GRPO,
        form="lora",
        beta=None,
        convention=UNKNOWN,
        licence=UNKNOWN,
        sources=("huggingface.co/jieliu/SD3.5M-FlowGRPO-GenEval", _GRPO_CODE),
        note="its page says that the weights were replaced since the configuration (geneval_sd3, beta 0.04)",
    ),
    PublishedAnchor(
        name="worstcoder/SD3.5M-DiffusionNFT-MultiReward",
        base=_SD35M,
        method="DiffusionNFT (arXiv 2509.16117)",
        form="lora",
        beta=None,
        convention=UNKNOWN,
        licence=UNKNOWN,
        sources=("huggingface.co/worstcoder/SD3.5M-DiffusionNFT-MultiReward",),
        note="trained, and meant to be sampled, without guidance",
    ),
)


def anchors() -> tuple[PublishedAnchor, ...]:
    """Aligned models on the hub of which the facts were found in public sources; no network is used."""
    return _ANCHORS
