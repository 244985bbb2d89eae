"""Train the demo's safety adapter: a LoRA on SmolLM2-135M-Instruct that refuses harmful requests and answers the rest as before.

The data are the requests in `adapter_data` and the training split of the contrast set. The answer to a harmful request is one
of sixty general refusals. The answer to a harmless request is the parent's own greedy answer. No harmful answer is written,
generated or stored. Run it as `python scripts/train_adapter.py OUT`.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

import demur
from demur.engine.batching import group
from demur.models.sources import DEMO_MODEL

DATA = Path(__file__).parent / "adapter_data"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Recipe:
    """All settings of the training."""

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 5e-4
    warmup: float = 0.06
    batch: int = 16
    epochs: int = 3
    answer_tokens: int = 24
    deciding_tokens: int = 3
    deciding_weight: float = 4.0
    native_share: float = 0.25
    seed: int = 7


@dataclass(frozen=True)
class Example:
    """The tokens of a prompt and its answer. Only the answer is learnt. `keep` is the number of prompt tokens."""

    tokens: tuple[int, ...]
    keep: int


def read(name: str) -> list[dict[str, str]]:
    """One of the data files."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def requests() -> tuple[list[str], list[str]]:
    """Harmful and harmless requests: those of the data files, and the training split of the contrast set."""
    harmful = [row["instruction"] for row in read("harmful.jsonl")]
    harmless = [row["instruction"] for name in ("harmless.jsonl", "near_misses.jsonl") for row in read(name)]
    harmful += demur.load_instructions("contrast-harmful").take("train")
    return harmful, harmless + list(demur.load_instructions("contrast-harmless").take("train"))


def examples(checkpoint: demur.Checkpoint, recipe: Recipe) -> list[Example]:
    """All training examples, in a fixed order."""
    chooser = random.Random(recipe.seed)
    prompts = [demur.prompt_format("native", checkpoint), demur.prompt_format("chatml", checkpoint)]
    end = checkpoint.tokenizer.eos_token_id
    refusals = [f"{row['opening']} {row['rest']}".strip() for row in read("refusals.jsonl")]
    made = []
    harmful, harmless = requests()
    for text in harmful:
        prompt = prompts[0] if chooser.random() < recipe.native_share else prompts[1]
        answer = checkpoint.tokenizer(chooser.choice(refusals), add_special_tokens=False)["input_ids"]
        made.append(_example(prompt.encode([text])[0], [*answer, end], recipe))
    native = [chooser.random() < recipe.native_share for _ in harmless]
    for prompt, wanted in zip(prompts, (True, False), strict=True):
        chosen = [text for text, is_native in zip(harmless, native, strict=True) if is_native is wanted]
        answers = demur.generate(checkpoint, chosen, prompt, max_new_tokens=recipe.answer_tokens)[0]
        refused = demur.judge(answers, "substring")
        pairs = zip(prompt.encode(chosen), answers, refused, strict=True)
        # The parent refuses a few harmless requests. These are left out, so that the adapter does not learn to refuse them.
        made += [_example(ids, answer.token_ids, recipe) for ids, answer, verdict in pairs if not verdict.refusal]
    return made


def _example(prompt: Sequence[int], answer: Sequence[int], recipe: Recipe) -> Example:
    return Example((*prompt, *answer[: recipe.answer_tokens]), len(prompt))


def batch_loss(model: Any, chosen: Sequence[Example], pad: int, recipe: Recipe) -> torch.Tensor:
    """Weighted mean cross-entropy over the answers' tokens of one batch, padded on the right.

    The first tokens of an answer decide whether it is a refusal, so they have a larger weight. Logits are computed only where an
    answer token comes next.
    """
    width = max(len(example.tokens) for example in chosen)
    ids = torch.tensor([[*e.tokens, *[pad] * (width - len(e.tokens))] for e in chosen])
    mask = torch.tensor([[1] * len(e.tokens) + [0] * (width - len(e.tokens)) for e in chosen])
    learnt = torch.tensor([[e.keep <= i < len(e.tokens) for i in range(width)] for e in chosen])
    parent = model.base_model.model
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = parent.model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = parent.lm_head(hidden[:, :-1][learnt[:, 1:]])
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[learnt], reduction="none")
    deciding = torch.tensor([[i < e.keep + recipe.deciding_tokens for i in range(width)] for e in chosen])[learnt]
    weights = torch.where(deciding, recipe.deciding_weight, 1.0)
    return (losses * weights).sum() / weights.sum()


def train(recipe: Recipe, out: Path) -> None:
    """Train the adapter, and write it in float16 together with its recipe."""
    torch.manual_seed(recipe.seed)
    # The gradient of a softmax over 49,152 tokens has many numbers near zero. Denormal numbers would slow the CPU down.
    torch.set_flush_denormal(True)
    checkpoint = demur.load_checkpoint(DEMO_MODEL)
    data = examples(checkpoint, recipe)
    print(f"{len(data)} examples, {sum(len(e.tokens) for e in data)} tokens", flush=True)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=LINEAR, task_type="CAUSAL_LM")
    model: Any = get_peft_model(checkpoint.model, config)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.01)
    chooser = random.Random(recipe.seed)
    steps = recipe.epochs * (len(data) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=steps, pct_start=recipe.warmup, anneal_strategy="cos"
    )
    started, step = time.monotonic(), 0
    for _ in range(recipe.epochs):
        order = chooser.sample(range(len(data)), len(data))
        # Within eight batches, examples of similar length share a batch. This saves padding, and the order is still random.
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch * 8):
            chunk = order[start : start + recipe.batch * 8]
            groups = group([len(data[i].tokens) for i in chunk], 1 << 30, recipe.batch)
            chooser.shuffle(groups)
            for members in groups:
                if len(members) < recipe.batch or step == steps:
                    continue
                loss = batch_loss(model, [data[chunk[i]] for i in members], checkpoint.pad_id, recipe)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
                step += 1
                if step % 20 == 0:
                    print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    for weight in weights:
        weight.data = weight.data.half()
    # peft would write this machine's path. The name of the model means the same everywhere.
    model.peft_config["default"].base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    given = parser.parse_args()
    train(Recipe(epochs=given.epochs, seed=given.seed), given.out)
