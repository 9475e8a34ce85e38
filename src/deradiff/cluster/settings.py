"""What a user says about a cluster."""

from typing import Any

from pydantic import Field, field_validator

from deradiff.validation import ValidatedModel


class ClusterSettings(ValidatedModel):
    """Where workers run, how many, and what becomes of work that fails.

    Attributes:
        address: of the cluster. None is the one that RAY_ADDRESS names or that runs on this machine, else a new one on
            this machine, which ends with the run; ``local`` is always a new one.
        workers: how many; None is as many as the cluster's GPUs (else CPUs) hold, more when nodes join.
        gpus_per_worker: a fraction lets several workers share a GPU. None is 1 where the cluster has a GPU, else 0.
        cpus_per_worker: a fraction is possible too.
        storage: where workers put images when they don't see the run folder: a URL that fsspec opens, such as
            ``s3://bucket/folder``. Without one the images come back through Ray.
        tries: how often a cell is tried before it is quarantined.
        retry_quarantined: try cells again that were quarantined.
        ray_options: more arguments of ``ray.init``, such as ``runtime_env``.

    Raises:
        ConfigError: names each that is wrong, what was given and what is expected.
    """

    address: str | None = None
    workers: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cpus_per_worker: float = Field(default=1, ge=0, allow_inf_nan=False)
    storage: str | None = None
    tries: int = Field(default=3, ge=1)
    retry_quarantined: bool = False
    ray_options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("storage")
    @classmethod
    def _storage(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("expected a URL such as s3://bucket/folder or file:///mnt/shared")
        return value
