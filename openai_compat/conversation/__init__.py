"""A conversation and what is asked of its next turn, whatever dialect it came in."""
