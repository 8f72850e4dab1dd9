#!/usr/bin/env python3
"""Compares nibble's tokenizer with the real `tokenizers` library on nasty texts.

  tools/tokenizer_differential.py build/release/tests/nibble_tokenizer_batch TOKENIZER.json... [--texts FILE...] [--seed N] [--random N]

Needs Python with `tokenizers` (a throw-away environment; never part of the build or of CI). For every tokenizer and
text it compares ids with and without special tokens, and the decoded text. Exit code 1 when anything differs.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

NASTY = [
    "", " ", "  ", "\n", "\t", "\r\n", "\0", "a\0b", "Hello world", " Hello  world ", "hello\n\n\nworld\n", "don't I'll we've 'S 'RE 'ſ",
    "x" * 300, " " * 300, "\n" * 77, "a b" * 100, "1234567890 3.14159 1,000,000", "٣٤٥ ⅷ ½ ²", "日本語のテキスト。漢字かな交じり文",
    "中文 混合 text 123", "한국어 텍스트", "עברית العربية हिन्दी ไทย", "😀😃👨‍👩‍👧‍👦🏳️‍🌈👍🏽", "é é ñ ñ ﬁ ﬃ Å Å", "ÀÉÎ ÇŞİıſß ẞ",
    "\u00a0\u2003\u3000\u200b\ufeff\u180e\u2028\u2029\u0085", "a\u0301\u0302\u0303b", "▁▁ ▁a ▁", "Ġ Ċ ĉ", "<s> </s> <unk> <pad>", "<s>hello</s>",
    "  <s>  x  </s>  ", "<|endoftext|>", "a<|endoftext|>b <|im_start|>user\nhi<|im_end|>", "<|begin_of_text|><|eot_id|>", "[CLS] [SEP] [MASK] [UNK]",
    "<0x0A><0xFF>", "<extra_id_0>", "def f(x):\n    return x**2  # comment\n\n\n", "http://example.com/a?b=c&d=%20", "\"quotes\" 'single' “curly” ‘x’",
    "!!!???...---___", "a.b.c,d;e:f", "\u202ertl\u202c", "\U0010ffff\ue000\ufffd\ufffe", "ᾳ̈́ ΐ ŉ ǰ", "ｆｕｌｌ　ｗｉｄｔｈ １２３", "ＡＢＣ ㍿ ㎏ ①",
    "x\u200dy\u200cz", "\x01\x02\x1f\x7f\x80\x9f", "In 2024, I'd've said: 'tis 50% off!\t\tOK?", "ǅ Ǆ ǆ", "Straße ΣΊΣΥΦΟΣ", "1a2b3c", "\r\r\n\n\r",
    "   leading", "trailing   ", "mid   dle", "\n leading newline space", "tab\tsep\t\t", "a\u3000b", "ーアーｱ", "́combining first", "e\u0301",
]
ALPHABET = list("abcdefgXYZ 0123456789 .,;!?'\"-_()[]{}<>|/\\\n\t\r   ") + list("éüßçñ日本語中文한글אבעج😀👍🏽\u0301\u200d\u00a0\u3000▁ĠſİΣς½Ⅷ٣\0\u2028ﬁ①")


def random_text(rng, tokens):
    parts = []
    for _ in range(rng.randint(1, 40)):
        if tokens and rng.random() < 0.15:
            parts.append(rng.choice(tokens))
        else:
            parts.append("".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 6))))
    return "".join(parts)


def ask(binary, folder, questions):
    lines = "".join(json.dumps(q) + "\n" for q in questions)
    ran = subprocess.run([binary, folder], input=lines.encode(), capture_output=True)
    if ran.returncode != 0:
        sys.exit(f"{folder}: {ran.stderr.decode()}")
    return [json.loads(line) for line in ran.stdout.decode().split("\n") if line]


def compare(binary, path, texts):
    oracle = Tokenizer.from_file(path)
    oracle.no_truncation()
    oracle.no_padding()
    questions = [{"text": text, "special": special} for text in texts for special in (True, False)]
    with tempfile.TemporaryDirectory() as folder:  # away from tokenizer_config.json, which adds tokens
        os.symlink(os.path.abspath(path), os.path.join(folder, "tokenizer.json"))
        answers = ask(binary, folder, questions)
    # tokenizers 0.23 decodes an added token that is "normalized" to its normalized text ("\u2581<s>" for Llama 2's "<s>"), and
    # then does not know it as special. nibble gives the token as written and skips it; only ids are compared there.
    rewritten = any(t.normalized and oracle.normalizer is not None and oracle.normalizer.normalize_str(t.content) != t.content
                        for t in oracle.get_added_tokens_decoder().values())
    bad = 0
    for question, got in zip(questions, answers):
        try:
            ids = oracle.encode(question["text"], add_special_tokens=question["special"]).ids
            want = {"ids": ids, "text": oracle.decode(ids, skip_special_tokens=False),
                    "text_skip": oracle.decode(ids, skip_special_tokens=True)}
            want["stream"] = want["text"]
        except Exception as error:  # noqa: BLE001
            want = {"error": str(error)}
        if "error" in want and "error" in got:
            continue
        wrong = [key for key in want if want[key] != got.get(key) and not (key != "ids" and rewritten)]
        if wrong:
            bad += 1
            if bad <= 10:
                for key in wrong:
                    print(f"{path}: {key} of {question['text'][:80]!r}\n  want {str(want[key])[:300]!r}\n  got  {str(got.get(key, got))[:300]!r}")
    print(f"{path}: {len(questions)} questions, {bad} differences", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=20)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    bad = 0
    for path in options.tokenizers:
        with open(path, encoding="utf-8") as f:
            tokens = [t["content"] for t in json.load(f)["added_tokens"]][:40]
        texts = NASTY + [random_text(rng, tokens) for _ in range(options.random)]
        for name in options.texts:
            with open(name, encoding="utf-8", newline="") as f:
                texts.append(f.read()[:200000])
        bad += compare(options.binary, path, texts)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
