"""Learning a matrix for texts, the division of images, and the verdict on what was learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from conftest import PICTUREBOOK
from tokenizers import Tokenizer

from clipsearch.datasets.captions import Captions
from clipsearch.errors import InputError
from clipsearch.images.files import ImageFile
from clipsearch.tasks.tuning import matrix as matrices
from clipsearch.tasks.tuning import measuring
from clipsearch.tasks.tuning.captioned import Captioned, check, divided, new_words, parts
from clipsearch.tasks.tuning.matrix import Examples, Strength, changed, learned
from clipsearch.tasks.tuning.naming import moving, names_of

DIM = 24


def unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def examples() -> Examples:
    """Thirty images of six kinds; the texts of three kinds lie where those of the others should."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((6, DIM)))
    images = unit(np.repeat(centres, 5, 0) + 0.2 * rng.standard_normal((30, DIM)))
    texts = unit(np.roll(centres, 1, 0) + 0.05 * rng.standard_normal((6, DIM)))
    pairs = np.array([(image // 5, image) for image in range(30)], np.int64)
    return Examples(texts, images, pairs, [unit(rng.standard_normal((40, DIM)))])


def brute_loss(matrix: npt.NDArray[np.floating], examples: Examples, strength: Strength, scale: float) -> float:
    """The loss as it is defined, pair by pair."""
    texts = examples.texts @ matrix.T
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    logits = strength.sharpness * scale * texts @ examples.images.T
    right = {(text, image) for text, image in examples.pairs.tolist()}
    total = 0.0
    for text, image in right:
        row = [logits[text, i] for i in range(len(examples.images)) if (text, i) not in right or i == image]
        column = [logits[t, image] for t in range(len(examples.texts)) if (t, image) not in right or t == text]
        total += 2 * logits[text, image] - np.log(np.exp(row).sum()) - np.log(np.exp(column).sum())
    moved = sum(float(((held @ matrix.T - held) ** 2).sum(1).mean()) for held in examples.held)
    return -total / 2 / len(right) + strength.hold * moved / len(examples.held)


def test_loss_and_gradients_are_those_of_the_definition(examples: Examples) -> None:
    rng = np.random.default_rng(1)
    factors = [0.3 * rng.standard_normal((DIM, 4)) for _ in range(2)]  # float64, for differences
    strength = Strength(0.5, 3.0)
    batch = matrices._drawn(examples, rng)

    def loss(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> float:
        return brute_loss(np.eye(DIM) + left @ right.T, examples, strength, 10.0)

    squares = [held.T @ held / len(held) for held in examples.held]
    found, slopes = matrices._loss(factors, batch, examples, squares, strength, scale=10.0)  # type: ignore[arg-type]
    assert found == pytest.approx(loss(*factors), rel=1e-5)
    for number, (row, column) in ((0, (3, 1)), (0, (20, 2)), (1, (0, 0)), (1, (17, 3))):
        ends = []
        for shift in (1e-4, -1e-4):
            moved = [factor.copy() for factor in factors]
            moved[number][row, column] += shift
            ends.append(loss(*moved))
        assert slopes[number][row, column] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-6)


def test_texts_find_their_images_and_others_stay(examples: Examples) -> None:
    strength = Strength(0.5, 3.0)
    matrix = learned(examples, strength, 20.0, seed=0)
    first = (changed(matrix, examples.texts) @ examples.images.T).argmax(1) // 5
    assert (first == np.arange(6)).all()
    assert ((examples.texts @ examples.images.T).argmax(1) // 5 != np.arange(6)).all()
    held = examples.held[0]
    loose = learned(examples._replace(held=[]), strength, 20.0, seed=0)
    near, far = ((changed(one, held) * held).sum(1).mean() for one in (matrix, loose))
    assert near > far


def test_same_seed_same_matrix(examples: Examples) -> None:
    one, two, other = (learned(examples, Strength(0.5, 3.0), 20.0, seed=seed) for seed in (3, 3, 4))
    assert (one == two).all()
    assert (one != other).any()


def test_a_large_set_is_learned_in_batches(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "_BATCH", 12)
    seen = []
    learned(examples, Strength(0.5, 3.0), 20.0, seed=0, on_step=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == list(range(1, matrices.STEPS + 1))
    batch = matrices._drawn(examples, np.random.default_rng(0))
    assert len(batch.rows) >= 12  # the pairs drawn, and others among the same texts and images
    assert not batch.wrong[batch.rows, batch.columns].any()
    assert np.mean([loss for _, loss in seen[-20:]]) < np.mean([loss for _, loss in seen[:20]])


def test_words_that_the_vocabulary_lacks_are_texts_of_their_own() -> None:
    captions = ["a red florp in the snow", "Florp", "two easels", "an easel in the snow", "a zindle", "an easel"]
    pairs = np.array([(i, i) for i in range(6)])
    texts, found = new_words(captions, pairs, Tokenizer.from_file(str(PICTUREBOOK / "tokenizer.json")))
    assert texts == [*captions, "a florp"]  # snow is known, and one picture of a zindle shows nothing
    assert set(map(tuple, found.tolist())) - set(map(tuple, pairs.tolist())) == {(6, 0), (6, 1), (5, 2), (5, 3)}


def test_a_name_moves_to_where_it_tells_its_images_apart_and_others_stay() -> None:
    """Images differ most in a direction that says nothing, so their means are poor queries."""
    rng = np.random.default_rng(0)
    spread = np.full(DIM, 0.1)
    spread[:4] = 1.5
    centres = np.concatenate([np.zeros((5, 8)), np.ones((5, DIM - 8)) * rng.choice([-0.2, 0.2], (5, DIM - 8))], axis=1)
    kind = np.repeat(np.arange(5), 40)
    seen, unseen = (unit(1 + centres[kind] + spread * rng.standard_normal((200, DIM))) for _ in range(2))
    means = unit(np.stack([seen[kind == k].mean(0) for k in range(5)]))
    texts = unit(means + 0.3 * rng.standard_normal((5, DIM)))
    lone = unit(rng.standard_normal((2, DIM)))  # texts of one image, and of all
    pairs = np.array([*((k, i) for i, k in enumerate(kind)), (5, 0), *((6, i) for i in range(200))])
    names = names_of(np.concatenate([texts, lone]), seen, pairs)
    assert names is not None
    np.testing.assert_array_equal(names.texts, texts)
    np.testing.assert_allclose(names.shares, np.full(5, 0.2))
    stays = [unit(rng.standard_normal((8, DIM)))]
    loose, tight = (moving(names, stays, hold) for hold in (0.1, 80.0))

    def found(queries: npt.NDArray[np.float32]) -> float:
        scores = queries @ unseen.T
        return float(np.mean([(kind[np.argsort(-row)[:40]] == k).mean() for k, row in enumerate(scores)]))

    plain = np.eye(DIM, dtype=np.float32)
    assert max(found(texts), found(means)) < 0.4
    assert found(changed(loose, texts)) > 0.65
    off = [np.linalg.norm(stays[0] @ one.T - stays[0], axis=1).mean() for one in (loose, tight)]
    assert 10 * off[1] < off[0]

    # It is the least of what it is said to be: no small step lowers it.
    def cost(matrix: npt.NDArray[np.floating]) -> float:
        moved = (names.shares[:, np.newaxis] * (names.texts @ matrix.T - names.targets) ** 2).sum()
        stayed = ((stays[0] @ matrix.T - stays[0]) ** 2).sum(1).mean()
        return float(moved + 0.1 * stayed + ((matrix - plain) ** 2).sum() / DIM)

    for _ in range(20):
        assert cost(loose) < cost(loose + 1e-3 * rng.standard_normal((DIM, DIM)))
    assert names_of(lone, seen, np.array([(0, 3), (1, 4)])) is None


def test_equal_contents_are_one_image() -> None:
    digests = [bytes([i % 12]) for i in range(15)]
    division = divided(digests, [(0, 0), (1, 12), (0, 12), (2, 3)], seed=0, control=False)
    assert division.kept == list(range(12))
    assert division.pairs.tolist() == [[0, 0], [1, 0], [2, 3]]
    with pytest.raises(InputError, match="2 different images are too few"):
        divided([b"a", b"b"] * 10, [(0, 0)], seed=0, control=False)


def test_equal_contents_are_in_the_same_part() -> None:
    digests = [bytes([i % 100, 1]) for i in range(200)]
    part = parts(digests, seed=0)
    assert (part[:100] == part[100:]).all()
    assert np.bincount(part[:100]).tolist() == [70, 15, 15]
    assert (parts(digests, seed=1) != part).any()
    shuffled = np.random.default_rng(0).permutation(200)
    assert (parts([digests[i] for i in shuffled], seed=0) == part[shuffled]).all()


def captioned(rng: np.random.Generator, noise: float) -> Captioned:
    images = unit(rng.standard_normal((60, DIM)))
    texts = unit(images + noise * rng.standard_normal((60, DIM)))
    names = [f"{noise}-{i}" for i in range(60)]
    pairs = np.stack([np.arange(60)] * 2, axis=1)
    return Captioned(images, texts, names, pairs, parts([name.encode() for name in names], 0), np.array(names))


def test_a_bootstrap_interval_holds_the_metric_and_narrows_for_equals() -> None:
    rng = np.random.default_rng(0)
    own, control = captioned(rng, 0.2), captioned(rng, 0.1)
    turn = (np.eye(DIM) + 0.2 * rng.standard_normal((DIM, DIM))).astype(np.float32)
    before = measuring.Pool.of(own, control, 2)
    turned = [one._replace(texts=changed(turn, one.texts)) for one in (own, control)]
    after = measuring.Pool.of(turned[0], turned[1], 2)
    measures = after.measures(before, seed=0)
    assert [(one.images, one.metric) for one in measures] == [
        (images, metric) for images in ("test", "control") for metric in measuring.METRICS
    ]
    for one in measures:
        assert one.before_interval[0] <= one.before <= one.before_interval[1]
        assert one.after_interval[0] <= one.after <= one.after_interval[1]
        assert one.change_interval[0] <= one.after - one.before <= one.change_interval[1]
    same = before.measures(before, seed=0)
    assert all(one.change_interval == (0, 0) for one in same)


def test_a_rank_is_that_among_images_that_the_caption_does_not_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images, texts = unit(rng.standard_normal((40, DIM))), unit(rng.standard_normal((9, DIM)))
    pairs = rng.permutation(np.array([(i % 9, i) for i in range(40)] + [(3, 0), (4, 0), (8, 39)], np.int64))
    asked = Captioned(
        images,
        texts,
        [f"t{i}" for i in range(9)],
        pairs,
        np.zeros(40, np.int64),
        np.array([f"a{i}" for i in range(40)]),
    )
    others = captioned(rng, 0.2)
    turn = (np.eye(DIM) + 0.3 * rng.standard_normal((DIM, DIM))).astype(np.float32)
    pool = np.concatenate([images, others.images])
    turned = asked._replace(texts=changed(turn, texts))
    wanted = []
    for text, image in pairs.tolist():
        scores = pool @ (turn @ texts[text])
        wrong = [score for i, score in enumerate(scores) if (text, i) not in set(map(tuple, pairs.tolist()))]
        wanted.append(1 + sum(score >= scores[image] for score in wrong))
    assert measuring._ranks(turned, others).tolist() == wanted
    monkeypatch.setattr(measuring, "_BLOCK_SCORES", 700)
    assert measuring._ranks(turned, others).tolist() == wanted


def test_pictures_in_both_sets_do_not_compete_with_themselves() -> None:
    own = captioned(np.random.default_rng(0), 0.01)
    found, known = measuring.Pool.of(own, own, 2).ranks()
    assert (found == 1).all()
    assert (known == 1).all()


@pytest.mark.parametrize(
    ("mix", "mrr", "control", "said"),
    [
        (1.0, (0.5, 0.8, 0.1), (0.9, 0.9), None),
        (0.0, (0.5, 0.5, 0.0), (0.9, 0.9), "Nothing that was learned"),
        (1.0, (0.5, 0.6, -0.01), (0.9, 0.9), "may be chance"),
        (1.0, (0.5, 0.8, 0.1), (0.9, 0.88), "by more than the permitted 0.01"),
    ],
)
def test_verdict(mix: float, mrr: tuple[float, float, float], control: tuple[float, float], said: str | None) -> None:
    none = (0.0, 0.0)
    measures = [
        measuring.Measure("test", "mrr", 9, *mrr[:2], none, none, (mrr[2], 1.0)),
        measuring.Measure("control", "recall@1", 9, *control, none, none, none),
    ]
    verdict = measuring.verdict(mix, measures, 0.01)
    assert verdict is None if said is None else said in str(verdict)


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        (["a", "b"], [(0, i) for i in range(9)], "9 captions are too few"),
        (["a"], [(0, i) for i in range(12)], "All captions are 'a'"),
        (["a", "b"], [(i, j) for i in range(2) for j in range(6)], "6 different images are too few"),
    ],
)
def test_too_little_to_learn_from(texts: list[str], pairs: list[tuple[int, int]], said: str) -> None:
    files = [ImageFile(b"%d" % i, 0, 0) for i in range(max(image for _, image in pairs) + 1)]
    with pytest.raises(InputError, match=said):
        check(Captions(files, texts, pairs, []))
