"""The Hessian of a Problem: products with it, what kind of point the training stands at, and the way out."""
