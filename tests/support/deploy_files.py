"""The files of deploy/ as tests read them: stages of a Dockerfile, settings and metrics by name."""

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from engines.replicas.policies import Placements
from gateway.metrics import Metrics
from gateway.settings import flags_of, setting_fields
from tests.support.fake_engine import FakeEngine

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
CHART = DEPLOY / "helm" / "penstock"
# Settings that deploy/ names and the product does not have yet. Each leaves with its setting.
EXPECTED: frozenset[str] = frozenset()


@dataclass
class Stage:
    """One FROM of a Dockerfile and the instructions that follow: (INSTRUCTION, rest)."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]


def stages(text):
    """The stages of a Dockerfile by name."""
    made = {}
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    current = None
    for line in re.sub(r"\\\n", " ", kept).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = made[name] = Stage(base, name)
        elif word and current is not None:
            current.steps.append((word, rest.strip()))
    return made


def chain(made, name):
    """A stage and those that it is built on, the nearest first."""
    found = []
    while name in made:
        found.append(made[name])
        name = made[name].base
    return found


def in_context(path):
    """Whether .dockerignore lets a path of the repository into the build."""
    kept = True  # as Docker begins
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        covers = pattern in {"*", path} or path.startswith(f"{pattern}/")
        if covers or (pattern.startswith("**/") and pattern[3:] in path.split("/")):
            kept = line.startswith("!")
    return kept


def variables():
    """The environment names that the product reads."""
    return {f"PENSTOCK_{each.name.upper()}" for each in setting_fields()} | {"PENSTOCK_CONFIG"}


def flags(command):
    """The flags that a command takes."""
    return {f"--{each.name.replace('_', '-')}" for each in flags_of(command)} | {"--config"}


def commands(text):
    """(command, its flags) wherever `penstock COMMAND ...` stands in a text."""
    for found in re.finditer(r"\bpenstock (serve|gateway|worker)\b([^`\n|&;]*)", text):
        words = re.findall(r"(?<!\S)--[a-z][a-z-]*", found[2])
        yield found[1], set(words)


class _Everything:
    """Workers that are all well, for metrics that are of workers."""

    placements = Placements(Counter(worker=1))

    def __getattr__(self, name):
        return 1


def metric_names():
    """Every series that /metrics can have."""
    metrics = Metrics("test")
    metrics.watch(FakeEngine().load, 16)
    metrics.watch_workers(_Everything())
    metrics.watch_responses(int, int)
    metrics.watch_log(int)
    return {
        sample
        for family in metrics.registry.collect()
        for sample in _series(family.name, family.type)
    }


def _series(name, kind):
    suffixes = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
        "info": ("_info",),
    }
    return [name + suffix for suffix in suffixes.get(kind, ("",))]


def named_metrics(text):
    """Every series of ours that a text names."""
    return set(re.findall(r"\bpenstock_[a-z_]+[a-z]\b", text))


def documents(path):
    """The YAML documents of a file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def json_words(text):
    """The words of an instruction in its JSON form."""
    words = yaml.safe_load(text)
    return words if isinstance(words, list) else shlex.split(text)
