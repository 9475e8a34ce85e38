"""Laws of the mathematics, mostly in float64, on closed forms and on the real schedulers of diffusers."""
