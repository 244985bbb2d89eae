"""Train a small TopK sparse autoencoder on a checkpoint's residual stream, for the measurement `features` of a study.

It reads requests, in the prompt format of the study, with the checkpoint's own greedy answers, and trains on the stream at the
input of one block. A public autoencoder is trained on a hundred thousand times as many tokens; this one is for checkpoints that
have none, and its reconstruction error says how far to trust it. Run it as
`python scripts/train_small_sae.py demo:smollm2-135m-instruct --layer 17 --out sae`.
"""

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import demur

DATA = Path(__file__).parent / "adapter_data"


def requests(most: int, seed: int) -> list[str]:
    """Requests of `adapter_data` and of the training split of the contrast set. None of them is measured later."""
    files = [DATA / f"{name}.jsonl" for name in ("harmful", "harmless", "near_misses")]
    found = [json.loads(line)["instruction"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    for name in ("harmful", "harmless"):
        found += demur.load_instructions(f"contrast-{name}").take("train")
    return random.Random(seed).sample(found, min(most, len(found)))


def streams(checkpoint: demur.Checkpoint, prompt_name: str, texts: Sequence[str], layer: int, new_tokens: int) -> Tensor:
    """The stream at the input of a block at every token position but the first of each text, (token, d_model)."""
    prompt = demur.prompt_format(prompt_name, checkpoint)
    answers = demur.generate(checkpoint, texts, prompt, max_new_tokens=new_tokens)[0]
    by_length = defaultdict[int, list[tuple[int, ...]]](list)
    for ids, answer in zip(prompt.encode(texts), answers, strict=True):
        by_length[len(ids) + len(answer.token_ids)].append((*ids, *answer.token_ids))
    engine, kept = checkpoint.engine_for("activations"), []
    for length, rows in by_length.items():
        for _, read in engine.read(rows, layers=[layer], site="resid_pre", positions=range(1 - length, 0), batch_tokens=2048):
            kept.append(read[:, 0].flatten(0, 1))
    return torch.cat(kept)


def train(activations: Tensor, latents: int, k: int, steps: int, batch: int, seed: int) -> dict[str, Tensor]:
    """Train by the mean squared error; decoder rows keep unit norm, and latents that are never active start again."""
    generator = torch.Generator().manual_seed(seed)
    held_out, activations = activations[:1000], activations[1000:]
    middle = activations.mean(0)
    scale = (activations - middle).norm(dim=-1).mean()
    decoder = torch.nn.functional.normalize(torch.randn(latents, activations.shape[1], generator=generator), dim=-1)
    weights = {"W_enc": decoder.T.clone(), "b_enc": torch.zeros(latents), "W_dec": decoder, "b_dec": torch.zeros_like(middle)}
    optimiser = torch.optim.Adam([one.requires_grad_() for one in weights.values()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 5 * (1 - step / steps)))
    active, started = torch.zeros(latents), time.monotonic()

    def reconstructed(given: Tensor) -> tuple[Tensor, Tensor]:
        before = ((given - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).relu()
        top = before.topk(k, dim=-1)
        kept = torch.zeros_like(before).scatter(-1, top.indices, top.values)
        return kept @ weights["W_dec"] + weights["b_dec"], top.indices

    for step in range(steps):
        given = (activations[torch.randint(len(activations), (batch,), generator=generator)] - middle) / scale
        found, chosen = reconstructed(given)
        loss = (found - given).square().sum(-1).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            weights["W_dec"].copy_(torch.nn.functional.normalize(weights["W_dec"], dim=-1))
            active.mul_(0.99).index_add_(0, chosen.flatten(), torch.ones(chosen.numel()))
            if step % 200 == 199 and step < 0.7 * steps:
                dead = (active < 1e-3).nonzero()[:, 0]
                rows = given[torch.randint(batch, (len(dead),), generator=generator)]
                weights["W_dec"][dead] = torch.nn.functional.normalize(rows, dim=-1)
                weights["W_enc"][:, dead] = weights["W_dec"][dead].T
        if step % 200 == 199:
            test = (held_out - middle) / scale
            with torch.no_grad():
                left = (reconstructed(test)[0] - test).square().sum() / (test - test.mean(0)).square().sum()
            print(
                f"step {step + 1}/{steps}: not reconstructed {100 * left:.1f} %, {time.monotonic() - started:.0f} s", flush=True
            )
    plain = {name: one.detach().contiguous() for name, one in weights.items()}
    # In the stream's own units: the encoder gives activations in units of its norm.
    return {**plain, "b_enc": plain["b_enc"] * scale, "b_dec": plain["b_dec"] * scale + middle}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--adapter")
    parser.add_argument("--prompt", default="chatml")
    parser.add_argument("--layer", type=int, required=True, help="the block at whose input it reads the stream")
    parser.add_argument("--out", type=Path, required=True)
    numbers = {"latents": 2048, "k": 32, "steps": 3000, "batch": 512, "requests": 2000, "answer-tokens": 16, "seed": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    loaded = demur.load_checkpoint(given.model, adapter=given.adapter)
    read = streams(loaded, given.prompt, requests(given.requests, given.seed), given.layer, given.answer_tokens)
    print(f"{len(read)} tokens", flush=True)
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(given.seed))
    made = train(read[order], given.latents, given.k, given.steps, given.batch, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    save_file(made, given.out / "sae_weights.safetensors")
    config = {"architecture": "topk", "k": given.k, "apply_b_dec_to_input": True, "normalize_activations": "none"}
    place = {"metadata": {"hook_name": f"blocks.{given.layer}.hook_resid_pre", "model_name": given.model}}
    (given.out / "cfg.json").write_text(json.dumps({**config, **place}, indent=2) + "\n", encoding="utf-8")
