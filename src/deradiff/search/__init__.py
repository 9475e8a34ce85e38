"""Search for lam with few images: sample where it decides most, fit a surrogate, choose."""
