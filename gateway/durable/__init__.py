"""Calls that outlive any process: what they told is written down before anybody is told it."""
