"""Objects and simulations as arrays, and the files they come from."""
