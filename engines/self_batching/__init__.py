"""What engines that batch by themselves have in common: the line in front, the way of a choice."""
