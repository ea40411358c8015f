"""Penstock beside other servers, in turns, on the same work: models, rivals, floors, figures."""
