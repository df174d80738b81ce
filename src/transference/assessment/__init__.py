"""What judges any fitted method, and knows none of them."""
