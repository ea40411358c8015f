"""/v1/rerank and /v1/score: how well texts fit, by a cross-encoder or by the angle of vectors."""
