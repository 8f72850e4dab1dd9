#!/usr/bin/env python3
"""Writes tests/data/tokenizers/*.json: tiny tokenizers made by the real `tokenizers` library (and `sentencepiece`), with
the ids and texts the library gives.

  tools/make_tokenizer_goldens.py [OUT]

A file is {"base": tokenizer.json, "texts": [...], "cases": [{"name", "set": {section: value}, "ids", "plain", "decoded",
"skipped", "more": [{"ids", "text"}]}]}; ids is null where the library reports an error. Needs a throw-away environment
with tokenizers and sentencepiece; never part of the build.
"""
import base64
import json
import os
import sys
import tempfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizer_differential import NASTY

CORPUS = """The quick brown fox jumps over the lazy dog. The dog did not mind; it slept on, and the fox ran on and on.
In 2024 there were 1234 foxes and 56 dogs in the town. "Don't you see?" she said. They'll go there, we've seen it.
Straße, café, naïve façade: déjà vu! Überall schöne Wörter. El niño comió piñas. Привет, мир! Как дела?
def encode(text): return [vocabulary[word] for word in text.split()]  # a comment
日本語のテキストです。漢字とかなと。中文也在这里。한국어도 있습니다. שלום עולם
the theory of these things, then there, other, weather, gather, together, bother; singing, ringing, bringing, king, thing
""".split("\n")
TEXTS = [t for t in NASTY if len(t) < 75] + ["The theory of singing foxes in 2024.", "Überall café 日本語", "the  dog\t\tslept. 12 345 6789!", "don't DON'T you’re",
                 "a-b_c (d) [e] {f} <g>", "-the-final--countdown-", "日本 ab カナ漢字 abc", "x1y22z333", "..a..b", " . , !"]
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def section(component):
    return json.loads(component.__getstate__())


def answer(tokenizer, text, special):
    try:
        return tokenizer.encode(text, add_special_tokens=special).ids
    except Exception:  # noqa: BLE001
        return None


def decode_or_none(tokenizer, ids, skip):
    """None where the library panics (Strip with stop > 0 on an empty token)."""
    try:
        return None if ids is None else tokenizer.decode(ids, skip_special_tokens=skip)
    except BaseException as error:  # noqa: BLE001
        if type(error).__name__ != "PanicException":
            raise
        return None


def case(name, base, texts, more=(), **sections):
    """Runs the library on `base` with some sections replaced."""
    full = dict(base, **sections)
    tokenizer = Tokenizer.from_str(json.dumps(full))
    ids = [answer(tokenizer, t, True) for t in texts]
    plain = [answer(tokenizer, t, False) for t in texts]
    decoded = [decode_or_none(tokenizer, i, False) for i in ids]
    skipped = [decode_or_none(tokenizer, i, True) for i in ids]
    out = {"name": name, "set": sections, "ids": ids}
    if plain != ids:
        out["plain"] = plain
    out["decoded"] = decoded
    if skipped != decoded:
        out["skipped"] = skipped
    if more:
        out["more"] = [{"ids": i, "text": decode_or_none(tokenizer, i, False)} for i in more]
    return out


def write(folder, name, base, texts, cases):
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
        json.dump({"base": base, "texts": texts, "cases": cases}, f, separators=(",", ":"))
        f.write("\n")
    print(name, len(cases), "cases", os.path.getsize(os.path.join(folder, name + ".json")), "bytes")


def train(model, trainer, normalizer=None, pre=None):
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level(folder):
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"], show_progress=False)
    tokenizer = train(models.BPE(), trainer, None, pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    base = json.loads(tokenizer.to_str())
    gpt2 = section(pre_tokenizers.ByteLevel(add_prefix_space=True))
    ignoring = dict(base["model"], ignore_merges=True)
    write(folder, "bpe_byte_level", base, TEXTS, [
        case("gpt4", base, TEXTS),
        case("ignore_merges", base, TEXTS, model=ignoring),
        case("gpt2", base, TEXTS, pre_tokenizer=gpt2),
        case("o200k", base, TEXTS, pre_tokenizer={"type": "Sequence", "pretokenizers": [
            section(pre_tokenizers.Split(Regex(O200K), "isolated")), base["pre_tokenizer"]["pretokenizers"][1]]}),
        case("digits", base, TEXTS, pre_tokenizer={"type": "Sequence", "pretokenizers": [section(pre_tokenizers.Digits(True)), gpt2]}),
        case("byte level in the middle", base, TEXTS, pre_tokenizer={"type": "Sequence", "pretokenizers": [gpt2, section(pre_tokenizers.Whitespace())]}),
        case("byte level normalizer", base, TEXTS, normalizer={"type": "ByteLevel"}, pre_tokenizer=None),
    ])


def metaspace(folder):
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], show_progress=False)
    norm = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = train(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), trainer, norm, pre_tokenizers.Split(Regex("(?=▁)"), "merged_with_next"))
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    base = json.loads(tokenizer.to_str())
    strip = {"type": "Sequence", "decoders": base["decoder"]["decoders"][:3] + [section(decoders.Strip(" ", 1, 2))]}
    model = dict(base["model"], byte_fallback=False)
    cases = [case("llama", base, TEXTS, more=[[259, 230, 150, 131, 259 + 40, 3 + 0xE2, 3 + 0x96], [3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 0x80]]),
             case("strip both ends", base, TEXTS[:30], decoder=strip),
             case("no fallback, fused", base, TEXTS, model=model),
             case("no fallback, not fused", base, TEXTS, model=dict(model, fuse_unk=False)),
             case("no unk", base, TEXTS, model=dict(model, unk_token=None))]
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            cases.append(case(f"metaspace {scheme} {split}", base, TEXTS, normalizer=None, decoder=section(decoders.Metaspace(prepend_scheme=scheme)),
                              pre_tokenizer=section(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split))))
    write(folder, "bpe_metaspace", base, TEXTS, cases)


def suffix(folder):
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False)
    tokenizer = train(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainer, normalizers.Lowercase(), pre_tokenizers.Whitespace())
    tokenizer.decoder = decoders.BPEDecoder()
    base = json.loads(tokenizer.to_str())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], continuing_subword_prefix="##", show_progress=False)
    prefix = json.loads(train(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainer, None, pre_tokenizers.Whitespace()).to_str())
    write(folder, "bpe_affixes", base, TEXTS, [case("suffix", base, TEXTS), case("prefix", base, TEXTS, model=prefix["model"], normalizer=None, decoder=None)])


def field(message, number):
    """The last length-delimited field of that number in a protobuf message."""
    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at
    at, found = 0, b""
    while at < len(message):
        tag, at = varint(at)
        if tag & 7 == 0:
            _, at = varint(at)
        elif tag & 7 == 2:
            size, at = varint(at)
            if tag >> 3 == number:
                found = message[at:at + size]
            at += size
        else:
            at += 4 if tag & 7 == 5 else 8
    return found


def unigram(folder):
    import sentencepiece
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/corpus.txt", "w") as f:
            f.write("\n".join(CORPUS * 3))
        with open(tmp + "/rules.tsv", "w") as f:  # sources and targets as code points
            for source, target in [("ﬁ", "fi"), ("①", "1"), ("\u212b", "\u00c5"), ("㍿", "株式会社"), ("\u00a0", " "), ("Ａ", "A"), ("e\u0301", "\u00e9"), ("\u200b", ""), ("👍🏽", "ok")]:
                f.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        sentencepiece.SentencePieceTrainer.Train(input=tmp + "/corpus.txt", model_prefix=tmp + "/m", vocab_size=560, byte_fallback=True, model_type="unigram",
                                                 normalization_rule_tsv=tmp + "/rules.tsv", character_coverage=0.98, minloglevel=2, hard_vocab_limit=False)
        processor = sentencepiece.SentencePieceProcessor(model_file=tmp + "/m.model")
        vocab = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
        charsmap = base64.b64encode(field(field(processor.serialized_model_proto(), 3), 2)).decode()  # normalizer_spec.precompiled_charsmap
    tokenizer = Tokenizer(models.Unigram(vocab, 0, True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    base = json.loads(tokenizer.to_str())
    base["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": charsmap}, section(normalizers.Replace(Regex(" {2,}"), " "))]}
    no_bytes = dict(base["model"], byte_fallback=False)
    write(folder, "unigram", base, TEXTS, [
        case("precompiled", base, TEXTS), case("no byte fallback", base, TEXTS, model=no_bytes), case("no unk", base, TEXTS, model=dict(no_bytes, unk_id=None)),
        case("nmt", base, TEXTS, normalizer=section(normalizers.Nmt())), case("scripts", base, TEXTS, pre_tokenizer={"type": "Sequence", "pretokenizers": [
            section(pre_tokenizers.UnicodeScripts()), section(pre_tokenizers.Metaspace())]})])


def sentencepiece_model(folder):
    """A tiny tokenizer.model, with ids as sentencepiece gives them once the prefix is put by hand as Transformers does."""
    import sentencepiece
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/corpus.txt", "w") as f:
            f.write("\n".join(CORPUS * 3))
        sentencepiece.SentencePieceTrainer.Train(input=tmp + "/corpus.txt", model_prefix=tmp + "/m", vocab_size=480, byte_fallback=True, model_type="bpe", character_coverage=0.98,
                                                 normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<user>"], control_symbols=["[INST]"],
                                                 hard_vocab_limit=False, minloglevel=2)
        with open(tmp + "/m.model", "rb") as f:
            proto = f.read()
    with open(os.path.join(folder, "tiny.model"), "wb") as f:
        f.write(proto)
    bare = sentencepiece.SentencePieceProcessor()
    bare.LoadFromSerializedProto(proto + b"\x1a\x02\x18\x00")  # normalizer_spec.add_dummy_prefix = false

    def encode(text):
        marked = text.replace(" ", "▁")
        return bare.encode(marked if marked.startswith("▁") or not marked else "▁" + marked)

    texts = [t for t in TEXTS if "<s>" not in t and "</s>" not in t and "<unk>" not in t and "\0" not in t]
    specials = {name: bare.piece_to_id(name) for name in ("<unk>", "<s>", "</s>", "[INST]", "<user>")}
    with open(os.path.join(folder, "tiny_model.json"), "w") as f:
        json.dump({"texts": texts, "ids": [encode(t) for t in texts], "specials": specials}, f, separators=(",", ":"))
        f.write("\n")


def characters():
    """Every character that any normalizer makes of the texts."""
    found = set()
    for norm in (None, normalizers.NFD(), normalizers.NFKD(), normalizers.NFKC(), normalizers.Lowercase()):
        for text in TEXTS:
            found |= set(text if norm is None else norm.normalize_str(text)) | set((text if norm is None else norm.normalize_str(text)).lower())
    return sorted(found)


def steps(folder):
    """Normalizers and pre-tokenizers: WordPiece over single characters shows every character and where words begin."""
    vocab = {}
    for c in ["[UNK]", "[CLS]", "[SEP]"] + characters():
        vocab[c] = len(vocab)
        vocab["##" + c] = len(vocab)
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=1000))
    base = json.loads(tokenizer.to_str())
    n, p = normalizers, pre_tokenizers
    regex = lambda r: Regex(r)  # noqa: E731
    norms = [n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.Strip(), n.Strip(left=False), n.Strip(right=False), n.StripAccents(), n.Nmt(),
             n.Sequence([n.NFD(), n.StripAccents(), n.Lowercase()]), n.Prepend("x"), n.Replace("l", "LL"), n.Replace(regex(r"\s+"), "_"), n.Replace(regex(r"(?i)[aeiou]"), ""),
             n.BertNormalizer(), n.BertNormalizer(lowercase=False), n.BertNormalizer(clean_text=False, strip_accents=False),
             n.BertNormalizer(handle_chinese_chars=False, strip_accents=True, lowercase=False)]
    cases = [case(f"normalizer {i}", base, TEXTS, normalizer=section(norm)) for i, norm in enumerate(norms)]
    pres = [p.Whitespace(), p.WhitespaceSplit(), p.BertPreTokenizer(), p.Digits(True), p.Digits(False), p.CharDelimiterSplit("e"), p.UnicodeScripts(), p.FixedLength(3),
            p.Metaspace("_", "first"), p.Sequence([p.WhitespaceSplit(), p.Punctuation("contiguous")]), p.Sequence([p.Digits(True), p.Punctuation("removed")])]
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        pres.append(p.Punctuation(behavior))
        for pattern in ("-", regex(r"\s"), regex(r"\w+"), regex(r"x*"), regex(r"\d{1,2}+|[a-f&&[^e]]+")):
            pres += [p.Split(pattern, behavior, False), p.Split(pattern, behavior, True)]
    cases += [case(f"pre-tokenizer {i}", base, TEXTS, pre_tokenizer=section(pre)) for i, pre in enumerate(pres)]
    for c in cases:
        c.pop("decoded")
        c.pop("skipped", None)
    write(folder, "steps", base, TEXTS, cases)


def bert(folder):
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    tokenizer = train(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20), trainer, normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    base = json.loads(tokenizer.to_str())
    template = section(processors.TemplateProcessing(single="[CLS] $A [SEP] [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]))
    write(folder, "wordpiece", base, TEXTS, [
        case("bert", base, TEXTS), case("no cleanup", base, TEXTS, decoder=section(decoders.WordPiece(cleanup=False))),
        case("sequence of processors", base, TEXTS[:20], post_processor={"type": "Sequence", "processors": [section(processors.ByteLevel()), template]})])


def added(folder):
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["[UNK]"] + list("abcdefghijklmnopqrstuvwxyz ▁.,<>[]/"))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokens = ["<S>", "<SEP>", "word", "wordy", "ab", "abc", "YES", " sp ", "ß"]
    texts = ["a word wordy words sword WORD", "  <S>  x  <SEP>  ", "<S><SEP><S>", "<s> yes YES Yes", "ababcabd", "x sp  sp y", "word", " word ", "_word_", "é word, word.", "STRASSE ß ẞ",
             "<S>word<S>", "a\n<S>\n\tb", "日word", "abcd abc ab a"]
    cases = []
    for single in (False, True):
        for left, right in ((False, False), (True, False), (False, True), (True, True)):
            for normalized in (False, True):
                made = Tokenizer.from_str(tokenizer.to_str())
                flags = dict(single_word=single, lstrip=left, rstrip=right, normalized=normalized)
                made.add_tokens([AddedToken(t, special=False, **flags) for t in tokens if not t.startswith("<")])
                made.add_special_tokens([AddedToken(t, special=True, **flags) for t in tokens if t.startswith("<")])
                found = json.loads(made.to_str())["added_tokens"]
                cases.append(case(f"single {single} left {left} right {right} normalized {normalized}", json.loads(tokenizer.to_str()), texts, added_tokens=found))
                if normalized:  # tokenizers 0.23 decodes such a token to its normalized text and then does not know it as special
                    cases[-1].pop("decoded")
                    cases[-1].pop("skipped", None)
    write(folder, "added_tokens", json.loads(tokenizer.to_str()), texts, cases)


def decode(folder):
    """Decoders on token lists."""
    pieces = ["[UNK]", "a", "b", "##c", "##d", ".", ",", "'", "n't", "'s", "do", "not", "▁", "▁the", "x▁y", "▁▁", "<0x41>", "<0xE2>", "<0x96>", "<0x81>", "<0xff>", "<0xZZ>", "end</w>", "mid</w>dle",
              "<pad>", "|", "h", "Ġhello", "Ċ", "âĸģ", "ðŁĺ", "Ģ", "日", " ", "  s ", ""]
    base = json.loads(Tokenizer(models.WordLevel({t: i for i, t in enumerate(pieces)}, unk_token="[UNK]")).to_str())
    d = decoders
    import random
    rng = random.Random(5)
    lists = [list(range(len(pieces))), list(reversed(range(len(pieces)))), [], [13], [12, 13], [16, 17, 18, 19, 20, 1], [17, 18], [24, 24, 26, 26, 24, 25, 25, 26], [30, 31], [30, 1, 31]]
    lists += [[rng.randrange(len(pieces)) for _ in range(rng.randint(1, 12))] for _ in range(25)]
    kinds = [None] + [section(k) for k in [d.ByteLevel(), d.Metaspace(), d.Metaspace(prepend_scheme="never"), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 1), d.Strip("a", 2, 0), d.Replace("▁", " "),
                                           d.Replace(Regex("[ab]"), "<>"), d.WordPiece(), d.WordPiece(cleanup=False), d.BPEDecoder(), d.CTC(), d.CTC(cleanup=False)]]
    kinds += [{"type": "Sequence", "decoders": [section(k) for k in s]} for s in (
        [d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)], [d.Fuse(), d.Replace("x y", "z")], [d.ByteFallback(), d.WordPiece()], [d.ByteLevel(), d.Strip("h", 1, 0)])]
    cases = []
    for i, kind in enumerate(kinds):
        made = case(f"decoder {i}", base, [], more=lists, decoder=kind)
        cases.append({"name": made["name"], "set": made["set"], "more": made["more"]})
    write(folder, "decoders", base, [], cases)


def demo(folder):
    """models/demo: the tokenizer file itself is in the repository, only the answers are written."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    with open(os.path.join(root, "models/demo/tokenizer.json"), encoding="utf-8") as f:
        base = json.load(f)
    write(folder, "demo", None, TEXTS, [case("demo", base, TEXTS)])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/data/tokenizers")
    os.makedirs(folder, exist_ok=True)
    for make in (byte_level, metaspace, suffix, unigram, sentencepiece_model, steps, bert, added, decode, demo):
        make(folder)


if __name__ == "__main__":
    main()
