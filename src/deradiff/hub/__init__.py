"""The Hugging Face hub: model cards beside weights, pushing them, and a list of published anchors."""

from deradiff.hub.model_card import ModelCard as ModelCard
from deradiff.hub.model_card import write_model_card as write_model_card
from deradiff.hub.published import PublishedAnchor as PublishedAnchor
from deradiff.hub.published import anchors as anchors
from deradiff.hub.repository import create_repository as create_repository
from deradiff.hub.repository import push as push

__all__ = ["ModelCard", "PublishedAnchor", "anchors", "create_repository", "push", "write_model_card"]
