"""The kustomize base: what the chart renders with its defaults. `make manifests` writes it."""

from tests.deploy.rendering import DEPLOY, render

BASE = DEPLOY / "kustomize" / "base" / "penstock.yaml"
HEAD = "# What deploy/helm/penstock renders with its default values. `make manifests` writes it.\n"


def base():
    """The text of the file."""
    return HEAD + "".join(f"---\n{text.strip()}\n" for text in render().values())


if __name__ == "__main__":
    BASE.write_text(base())
