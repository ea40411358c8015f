"""Figures for docs/performance.md: each module measures one thing and prints it."""
