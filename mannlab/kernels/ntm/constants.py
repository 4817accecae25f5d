"""What keeps the equations finite."""

# Keeps norms away from zero, so that a memory of zeros has finite gradients.
NORM_EPSILON = 1e-8
# Keeps logarithms of weights finite; far below what single precision can see beside 1.
SMALLEST_WEIGHT = 1e-12
