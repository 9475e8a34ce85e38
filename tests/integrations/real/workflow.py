"""The example workflows (saved by ComfyUI's page) as prompts for its HTTP API."""

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[3] / "integrations" / "comfyui" / "example_workflows"
Prompt = dict[str, dict[str, Any]]


def load_example(name: str, **settings: Any) -> Prompt:
    """An example at the size and in the steps of a test, with random conditioning for want of a text encoder.

    ``settings`` replace widgets' values by name, on whatever node has that widget.
    """
    prompt = to_prompt(json.loads((EXAMPLES / f"{name}.json").read_text()))
    settings = {"width": 64, "height": 64, "steps": 4} | settings
    for node in prompt.values():
        if node["class_type"] == "CLIPTextEncode":
            node["class_type"] = "TinyTextEncode"
            del node["inputs"]["clip"]
        node["inputs"] |= {name: settings[name] for name in node["inputs"].keys() & settings.keys()}
    return prompt


def to_prompt(workflow: dict[str, Any]) -> Prompt:
    """What ComfyUI's page sends when a workflow is queued."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, sources)} for node in workflow["nodes"]
    }


def _inputs(node: dict[str, Any], sources: dict[int, list[Any]]) -> dict[str, Any]:
    values = iter(node["widgets_values"])
    inputs: dict[str, Any] = {}
    for entry in node["inputs"]:
        if "widget" in entry:
            inputs[entry["name"]] = next(values)
            if entry["name"] == "seed":
                next(values)  # the page's own widget: what happens to the seed after a run
        if entry["link"] is not None:
            inputs[entry["name"]] = sources[entry["link"]]
    return inputs


def only(prompt: Prompt, class_type: str) -> str:
    """The id of the only node of a type."""
    (found,) = (name for name, node in prompt.items() if node["class_type"] == class_type)
    return found
