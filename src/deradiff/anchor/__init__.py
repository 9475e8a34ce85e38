"""Two or more models of one denoiser: where they come from, whether they fit, and how they are held."""
