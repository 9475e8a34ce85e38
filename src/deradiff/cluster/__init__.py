"""The same run on many machines: one process keeps the journal, the workers of a Ray cluster sample and score.

Read in this order: `settings` (what a user says), `scheduler` (which worker does what; knows neither Ray nor images),
`pool` (the workers as the scheduler sees them), `ray_pool` (the same on Ray), `images` (how images reach the run
folder), `worker` and the jobs `sampling_job`, `scoring_job`, `prompt_job` (what runs on the other machines), `sampler`,
`scorer` and `cluster` (all of it, as a run uses it).
"""

from deradiff.cluster.cluster import Cluster, Interruptible

__all__ = ["Cluster", "Interruptible"]
