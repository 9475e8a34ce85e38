"""Where in a folder or repository a model lies."""

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from deradiff.errors import DeradiffError
from deradiff.validation import ValidatedModel


def _check_relative(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("expected a path inside the folder or repository")
    return path


def _check_no_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("a name or path holds no null character")
    return text


Name = Annotated[str, AfterValidator(_check_no_null)]
Text = Annotated[Name, Field(min_length=1)]
Inside = Annotated[Text, AfterValidator(_check_relative)]


class Location(ValidatedModel):
    """Where in a folder or repository a model lies; None leaves it to be found.

    Attributes:
        subfolder: of the folder or repository.
        revision: branch, tag or commit of a repository on the hub.
        variant: of the weights, such as fp16.
        weight_name: name of a safetensors file.

    Raises:
        ConfigError: an empty value, a path that leads out, or a variant of a file that is named itself.
    """

    subfolder: Inside | None = None
    revision: Text | None = None
    variant: Text | None = None
    weight_name: Inside | None = None

    @model_validator(mode="after")
    def _check_consistent(self) -> "Location":
        if self.weight_name is not None and self.variant is not None:
            raise ValueError("weight_name names one file, and variant chooses among several; leave one out")
        return self

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self if value is not None)

    def check_applies(self, name: str, path: Path | None, error: type[DeradiffError]) -> None:
        """Check that a model has what the location names: revisions are the hub's, and a file has no parts.

        Args:
            name: of the model, as it was given.
            path: of the model on this machine; None for a repository on the hub.
            error: what is raised.

        Raises:
            DeradiffError: of the kind asked for.
        """
        if path is not None and self.revision is not None:
            raise error(f"{name} is on this machine and has no revision {self.revision!r}; leave the revision out")
        if path is not None and path.is_file() and str(self):
            raise error(f"{name} is a file, in which there is no {self}; leave that out, or give the folder")
