"""Open a decoder on a GPU. Importing this needs Triton."""

import torch

from engines.torch.cuda.decoder import CudaDecoder, Sizes
from engines.torch.cuda.graphs import Graphs
from engines.torch.cuda.triton_kernels import TritonKernels
from engines.torch.loading import LoadedModel

_PER_PROCESSOR = 2  # programs of attention at once


def open_cuda(
    loaded: LoadedModel, *, num_blocks: int, block_size: int, max_rows: int, graphs: str | None
) -> CudaDecoder:
    """The decoder for a model on CUDA; captures its graphs, if they are wanted at start."""
    processors = torch.cuda.get_device_properties(loaded.device).multi_processor_count
    kernels = TritonKernels(loaded.facts.max_context, _PER_PROCESSOR * processors)
    sizes = Sizes(num_blocks, block_size, max_rows)
    with torch.cuda.device(loaded.device):
        mode = None if graphs is None else Graphs(graphs)
        return CudaDecoder(loaded, sizes, kernels, graphs=mode)
