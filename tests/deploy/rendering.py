"""The chart as objects. The only file that knows the library that renders: it is an early one."""

from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "penstock"
VERSIONS = ("1.32", "1.37")  # of Kubernetes: the oldest and the newest that the validator has
# Kinds of operators, whose schemas are not Kubernetes' own.
FOREIGN = frozenset({"Certificate", "Issuer", "PrometheusRule", "ServiceMonitor"})

Refused = helm.HelmValuesError


def render(values=None, *, name="penstock", namespace="penstock"):
    """The text of every template that has any, by file. Raises Refused for wrong values."""
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(values or {}, name=name, namespace=namespace)
    kept = {path.rpartition("/")[2]: text for path, text in sorted(texts.items())}
    return {path: text for path, text in kept.items() if path != "NOTES.txt" and loaded(text)}


def findings():
    """What Helm's linter has to say that is not advice."""
    found = helm.lint(str(CHART))
    said = [each for each in found["messages"] if each["severity"] > 1]
    return said + found["errors"]


def loaded(text):
    """The objects of a YAML text."""
    return [each for each in yaml.safe_load_all(text) if each]


class Objects(list):
    """Rendered objects, by kind and name."""

    def of(self, kind):
        return [each for each in self if each["kind"] == kind]

    def one(self, kind, name):
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    def pods(self):
        """(object, pod spec, pod labels) of whatever makes pods."""
        for each in self:
            if each["kind"] in {"Deployment", "StatefulSet"}:
                yield _pod(each)

    def jobs(self):
        """The same of what runs once."""
        yield from map(_pod, self.of("Job"))


def _pod(owner):
    template = owner["spec"]["template"]
    return owner, template["spec"], template["metadata"]["labels"]


def objects(values=None, **release):
    """The chart's objects with these values."""
    return Objects(each for text in render(values, **release).values() for each in loaded(text))


def validate(made, version):
    """Hold objects to the schema of a Kubernetes; fields that it does not know are errors."""
    for each in made:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)
