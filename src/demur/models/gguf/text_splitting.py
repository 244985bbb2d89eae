r"""How byte-level tokenizers cut a text before they merge bytes: one list of regular expressions for each `tokenizer.ggml.pre`.

Each expression cuts the pieces that the one before it left. The names, which expression belongs to which, whether whole words are
looked up before they are merged, and whether BOS is added where the file does not say, are those of llama.cpp
(`llama-vocab.cpp`). Where llama.cpp writes an expression in another way because its own engine lacks something (such as
`(?i:`), this is the expression of the family's tokenizer.json, which llama.cpp quotes beside its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _tiktoken(digits: str, letters: str = r"\p{L}", others: str = r"[^\s\p{L}\p{N}]+[\r\n]*") -> str:
    """The expression of cl100k and its relatives, which differ in how many digits stay together."""
    return rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}| ?{others}|\s*[\r\n]+|{_REST}"


def _by_case(digits: str, endings: str) -> str:
    """The expression of o200k and its relatives, which also cut where a small letter meets a capital."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    first = r"[^\r\n\p{L}\p{N}]?"
    words = f"{first}{upper}*{lower}+{endings}|{first}{upper}+{lower}*{endings}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_REST}"


_LLAMA3 = (_tiktoken(r"\p{N}{1,3}"),)
_QWEN2 = (_tiktoken(r"\p{N}"),)
_QWEN35 = (_tiktoken(r"\p{N}", r"[\p{L}\p{M}]", r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)
_O200K = (_by_case(r"\p{N}{1,3}", f"{_ENDINGS}?"),)
_TEKKEN = (_by_case(r"\p{N}", ""),)
_SEED_CODER = (_tiktoken(r"\p{N}{1}", others=r"[^\s\p{L}\p{N}\r\n]+"),)
_ONE_DIGIT = (r"\p{N}", _GPT2)
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")
_NO_NAME = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_BLOOM = (r" ?[^(\s|.,!?…。，、।۔،)]+",)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{_REST}",
)


@dataclass(frozen=True)
class Splitting:
    """How a byte-level tokenizer treats text before it merges bytes.

    Attributes:
        expressions: the regular expressions, in their order.
        whole_words: whether a piece that is a token as it stands is taken whole, whatever the merges say.
        adds_bos: whether BOS is added where the file does not say.
    """

    expressions: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


def _named(names: str, *splitting: str, whole_words: bool = False, adds_bos: bool = False) -> dict[str, Splitting]:
    return dict.fromkeys(names.split(), Splitting(splitting, whole_words, adds_bos))


SPLITTINGS: Mapping[str, Splitting] = {
    **_named("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2", *_LLAMA3, whole_words=True, adds_bos=True),
    **_named("dbrx smaug-bpe glm4 chatglm-bpe", *_LLAMA3),
    **_named("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", *_QWEN2),
    **_named("qwen35", *_QWEN35),
    **_named("gpt-4o llama4 kanana2 talkie minimax-m2", *_O200K),
    **_named("tekken", *_TEKKEN, whole_words=True, adds_bos=True),
    **_named("seed-coder", *_SEED_CODER),
    **_named("gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion granite-docling exaone4", _GPT2),
    **_named("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", *_ONE_DIGIT),
    **_named("falcon", *_FALCON),
    **_named("bloom poro-chat gpt3-finnish", *_BLOOM),
    **_named("viking", *_BLOOM, r"\p{N}"),
    **_named("deepseek-coder", *_DEEPSEEK_CODER),
    **_named("deepseek-v3 hunyuan-dense joyai-llm", *_DEEPSEEK3),
    **_named("default", *_NO_NAME),
}
"""How text is cut, by the name in `tokenizer.ggml.pre`."""
