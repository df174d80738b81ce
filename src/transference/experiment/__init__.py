"""A study file becomes cells, cells become records."""
