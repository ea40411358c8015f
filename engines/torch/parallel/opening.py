"""Open a model in several processes: this one, and those it starts."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engines.torch.decoders import Decoder, open_decoder
from engines.torch.footprint import read_footprint
from engines.torch.loading import LoadedModel, Progress, open_model
from engines.torch.parallel.crew import Crew
from engines.torch.parallel.decoder import DividedDecoder
from engines.torch.parallel.layout import check_divisible
from engines.torch.parallel.part import Part
from engines.torch.parallel.sharding import Share, divide, join


@dataclass(frozen=True, slots=True)
class Divided:
    """Part 0 of a model, and the decoder that steps all of it; closing it ends the others."""

    loaded: LoadedModel
    decoder: DividedDecoder
    crew: Crew


def open_share(part: Part, progress: Progress | None = None) -> LoadedModel:
    """Load one part. The whole checkpoint is read; of it stays what the part needs."""
    share = Share(part.rank, part.ranks)
    loaded = open_model(
        Path(part.path),
        dtype=part.dtype,
        device=str(part.place),
        threads=part.threads,
        progress=progress,
        cut=lambda module, facts: divide(module, facts, share),
    )
    join(loaded.module)
    return loaded


def open_own(loaded: LoadedModel, part: Part) -> Decoder:
    """The decoder of one part. No graphs: parts must agree on each step, padding included."""
    return open_decoder(
        loaded,
        num_blocks=part.num_blocks,
        block_size=part.block_size,
        max_rows=part.max_rows,
        graphs=None,
    )


def open_divided(part: Part, progress: Progress | None = None) -> Divided:
    """Start the other processes, and load part 0 meanwhile.

    Raises ModelRejected, also where one of them ends before it is ready.
    """
    check_divisible(Path(part.path), read_footprint(Path(part.path)), part.ranks)
    if part.device == "cpu" and not part.threads:
        part = replace(part, threads=max(1, torch.get_num_threads() // part.ranks))
    crew = Crew(part)
    try:
        loaded = open_share(part, progress)
        decoder = open_own(loaded, part)
        crew.meet()
    except BaseException:
        crew.close()
        raise
    return Divided(loaded, DividedDecoder(decoder, crew), crew)
