"""Grammars over tokens by llguidance: the vocabulary, compiling, and a check in a process apart."""
