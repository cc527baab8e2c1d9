"""How backends are, and what follows from it: values and pure functions. Time is an argument, results are values."""
