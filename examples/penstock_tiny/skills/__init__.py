"""The skills of penstock-tiny: one module per kind of text it is taught."""
