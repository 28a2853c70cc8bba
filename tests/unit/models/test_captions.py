"""Sentences word by word: what one pass says of them, what beams find, and what a network may not say."""

import itertools

import pytest
import torch
from torch import Tensor

from models.captions import begin, next_word, score_words, write_captions
from models.networks.caption_lstm import BOUNDARY, UNKNOWN
from models.sequence_model import SequenceModel
from models.sequence_model import rebuild_network as rebuild
from tests.networks_under_test import BANDS, FRAME

WORDS = ("<end>", "<unknown>", "a", "b", "c")
LONGEST = 3


def made(members: int = 2, **settings: object) -> SequenceModel:
    """Untrained, with words of very unlike probability, and temperatures of their own."""
    torch.manual_seed(3)
    description = {
        "kind": "caption_lstm", "bands": BANDS, "outputs": len(WORDS), **FRAME, "widths": (3, 4), "hidden": 4, "embedding": 3,
        "word_hidden": 5, "longest": LONGEST, **settings,
    }  # fmt: skip
    networks = [rebuild(description) for _ in range(members)]
    for network in networks:
        torch.nn.init.normal_(network.head.weight, std=2.0)
    model = SequenceModel(networks, WORDS).double().eval()
    for member in range(members):
        model.set_calibration(member, 1.0 + member / 2)
    return model


def clips(count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, BANDS, *FRAME.values(), generator=generator, dtype=torch.float64)
    valid = torch.ones(count, 4, dtype=torch.bool)
    valid[0, 2:] = False
    return x, valid


def sentences() -> Tensor:
    """Every sentence of at most LONGEST words that ends, without the unknown word."""
    spoken = [k for k in range(len(WORDS)) if k not in (BOUNDARY, UNKNOWN)]
    every = [words for length in range(LONGEST + 1) for words in itertools.product(spoken, repeat=length)]
    return torch.tensor([[*words, *[BOUNDARY] * (LONGEST + 1 - len(words))] for words in every])


def likelihood(model: SequenceModel, words_SL: Tensor, sample: int) -> Tensor:
    """log_p_S of whole sentences about one sample, each place after the end left out."""
    x, valid = clips()
    count = len(words_SL)
    each = score_words(model, range(len(model.members)), x[sample].expand(count, -1, -1, -1, -1),
                       valid[sample].expand(count, -1), words_SL)  # fmt: skip
    is_end = words_SL == BOUNDARY
    return (each * ((is_end.cumsum(1) - is_end.long()) == 0)).sum(1)


@pytest.mark.parametrize("attention", [False, True])
def test_word_by_word_is_as_likely_as_in_one_pass(attention: bool) -> None:
    model, (x, valid) = made(attention=attention), clips()
    words = torch.tensor([[2, 3, 4, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    states, before, stepwise = begin(model, (0, 1), x, valid), torch.full((3,), BOUNDARY), []
    for place in range(words.shape[1]):
        log_p, states = next_word(model, (0, 1), states, before)
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3, dtype=torch.float64))
        before = words[:, place]
        stepwise.append(log_p.gather(1, before[:, None])[:, 0])
    torch.testing.assert_close(torch.stack(stepwise, 1), score_words(model, (0, 1), x, valid, words), atol=1e-10, rtol=0)


def test_beams_find_the_likeliest_sentences() -> None:
    """With as many beams as there are beginnings, exactly those of an exhaustive search, with their probabilities."""
    model, (x, valid), every = made(), clips(), sentences()
    words, log_p = write_captions(model, (0, 1), x, valid, width=60)
    for sample in range(len(x)):
        wanted, order = likelihood(model, every, sample).sort(descending=True)
        ended = [(w.tolist(), p) for w, p in zip(words[sample], log_p[sample], strict=True) if w[LONGEST - 1] == BOUNDARY]
        short = [k for k in order.tolist() if every[k][LONGEST - 1] == BOUNDARY]  # of the longest, beams do not ask for the end
        assert [one for one, _ in ended][: len(short)] == every[short].tolist()
        torch.testing.assert_close(
            torch.stack([p for _, p in ended[: len(short)]]), wanted[[order.tolist().index(k) for k in short]]
        )


def test_one_beam_says_the_likeliest_word_each_time() -> None:
    model, (x, valid) = made(1), clips()
    words, log_p = write_captions(model, (0,), x, valid, width=1)
    for sample in range(len(x)):
        said: list[int] = []
        total = 0.0
        while len(said) < LONGEST and BOUNDARY not in said:
            known = torch.tensor([[*said, BOUNDARY]])
            y = model.raw(0, x[sample : sample + 1], valid[sample : sample + 1], known)[0, -1]
            log = torch.log_softmax(y.detach(), -1)
            log[UNKNOWN] = -torch.inf
            total += float(log.max())
            said.append(int(log.argmax()))
        assert words[sample, 0].tolist() == [*said, *[BOUNDARY] * (LONGEST + 1 - len(said))]
        assert float(log_p[sample, 0]) == pytest.approx(total)


def test_words_that_were_not_learnt_are_never_said() -> None:
    model, (x, valid) = made(1), clips()
    model.members[0].set_known(torch.tensor([False, True, True, False, True]))  # type: ignore[operator]
    words, log_p = write_captions(model, (0,), x, valid, width=12)
    said = words[torch.isfinite(log_p)]
    assert set(said.unique().tolist()) == {BOUNDARY, 2, 4}
    with pytest.raises(ValueError, match="expected a bool for each of 5 words"):
        model.members[0].set_known(torch.ones(4, dtype=torch.bool))  # type: ignore[operator]
    other = SequenceModel(
        [rebuild({"kind": "cnn_lstm", "bands": BANDS, "outputs": len(WORDS), **FRAME, "widths": (3, 4)})], WORDS
    )
    with pytest.raises(TypeError, match="CNNRecurrent writes no sentences"):
        write_captions(other, (0,), x, valid, width=1)
