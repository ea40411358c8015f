"""One decoder in several processes of one machine, each with its share of the heads and MLPs."""
