"""Peak memory and time of patches of the demo pair, for several sizes of the KV caches of a batch.

    python -m benchmarks.pair_memory [--repeats 2]

Linux only. Four patches run over one pass of the source, as in `demur diff`. Sizes are interleaved.
"""

import argparse
import gc
import time
from functools import partial

import demur
from benchmarks.memory import peak
from demur.engine.lockstep.matched_pair import matched_pair
from demur.engine.lockstep.pair_tree import LEAST_BYTES, fitting_tokens
from demur.engine.lockstep.stream_patch import StreamPatch
from demur.measurements.diffing.pair_probabilities import edited_probabilities, pair_probabilities
from demur.measurements.exact_refusal.sampling import Sampling

INSTRUCTIONS = 16
LAYERS = (3, 10, 16, 22)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    base = demur.load_checkpoint("demo:smollm2-135m-instruct", name="before", device="cpu")
    chat = demur.load_checkpoint("demo:smollm2-135m-instruct", adapter="demo:safety-adapter", name="after", device="cpu")
    pair = matched_pair(chat, base)
    texts = demur.load_instructions("contrast-harmful").take("test", INSTRUCTIONS)
    prompts = [tuple(ids) for ids in demur.prompt_format("chatml", chat).encode(texts)]
    sampling = Sampling("prefix", 16, True, 0.01)
    patches = [StreamPatch(layer) for layer in LAYERS]
    weights = sum(weight.nbytes for one in (base, chat) for weight in one.model.parameters())
    print(f"weights of both checkpoints: {weights / 2**20:.0f} MiB")
    # The tokens whose caches take half a GiB.
    least = fitting_tokens(pair, len(patches))
    sizes = {"half a GiB": least}
    sizes |= {f"{share:.0%} of the weights": int(share * weights * least / LEAST_BYTES) for share in (0.2, 0.1)}
    for _ in range(asked.repeats):
        for name, tokens in sizes.items():
            start = time.process_time()
            before, most = peak(partial(pair_probabilities, pair, prompts, patches, sampling, batch_tokens=tokens))
            print(f"{name}: {(most - before) / 2**20:.0f} MiB more, {time.process_time() - start:.1f} s of CPU")
            gc.collect()
    before, most = peak(lambda: edited_probabilities(chat, pair, prompts, sampling))
    print(f"one checkpoint alone, with prepacked weights: {(most - before) / 2**20:.0f} MiB more")


if __name__ == "__main__":
    main()
