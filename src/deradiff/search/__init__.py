"""Finding the lam to take with few images: sample where it decides most, fit a surrogate, choose."""
