"""From a table of scores to the lam to take, with its interval, its reason and its warnings; knows no model.

Read in this order: `limits` (confidence limits of a mean over prompts), `statistics`, `curves` (a reward along lam),
`criteria` (the question), `guards` (where they are shown to hold), `decide` (the choice), `recommend` (the answer),
`power` (how many prompts would settle more), `overoptimization` (the hacking alarm), `messages`. `reweight` and
`calibrate` use trajectory statistics instead of samples at every lam.
"""
