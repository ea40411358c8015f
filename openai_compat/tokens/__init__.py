"""/v1/tokenize, /v1/detokenize and the prompt that a chat becomes: nothing runs."""
