"""Parts that two methods or more share. A part moves here when a second method needs it, not before."""
