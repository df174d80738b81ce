"""Records become numbers, numbers become a page. No torch."""
