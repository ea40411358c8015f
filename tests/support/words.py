"""A tokenizer of whole words: w4 is token 4, and texts get the special tokens that BERT gives."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors

VOCAB = 512
CLS, SEP = 2, 3


def word_tokenizer() -> Tokenizer:
    """Words w4 ... w511 are tokens 4 ... 511; texts and pairs get [CLS] and [SEP] as BERT's do."""
    specials = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    vocab = {word: place for place, word in enumerate(specials)}
    vocab |= {f"w{place}": place for place in range(len(specials), VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return tokenizer
