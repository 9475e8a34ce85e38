"""A run is a store of cells under one recipe: it grows, and everything is rebuilt from its journals.

Read in this order: `cells` (what is wanted), `recipe` (what all cells share), `store` (the folder), `sampler` and
`runner` (images), `scoring`, `results` (the table), `run` (all of it from Python).
"""
