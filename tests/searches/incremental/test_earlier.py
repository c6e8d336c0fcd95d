"""What is new of the images of an earlier run, where it goes on, and what keeps it from that."""

from dataclasses import replace
from datetime import datetime

import pandas as pd
import pytest

from tests.learning.samples import sample, setting
from tuner.base.errors import ExperimentError, TrackingError
from tuner.experiment.file import experiment_of
from tuner.images.index import ImageSet
from tuner.learning.state import Course, LearnedState, make_learner
from tuner.learning.stream import drawn_order
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages
from tuner.searches.incremental.earlier import Earlier, check_same_learning, claim
from tuner.searches.incremental.feature_rows import rows_to_learn
from tuner.searches.resume import EarlierSearch
from tuner.tracking import heartbeat, names
from tuner.tracking.heartbeat import Heartbeat
from tuner.tracking.store import Tracking

LABELS = ("x", "y")
COURSE = Course(seed=3, batch=2, epochs=2)
OVER = replace(COURSE, epoch=2, learned=6)
NETWORK = Network("GlyphNet", "a" * 64, "nowhere.keras", (8, 8), "unit", 30, "float32")


def index(digests: str, parts: str, labels: str | None = None) -> pd.DataFrame:
    """One letter an image: its digest, and its part (l, v, t)."""
    named = {"l": "train", "v": "validation", "t": "test"}
    table = pd.DataFrame({"digest": list(digests), "part": [named[part] for part in parts]})
    table["label"] = list(labels or ("xy" * len(digests))[: len(digests)])
    table["label_index"] = table["label"].map(LABELS.index)
    return table.assign(path=table["digest"] + ".png", bytes=1)


def prepared(
    table: pd.DataFrame, labels: tuple[str, ...] = LABELS, network: Network = NETWORK
) -> PreparedImages:
    images = ImageSet(None, lambda: None, labels)  # type: ignore[arg-type,return-value]  # not read
    return PreparedImages(images, table, table.iloc[:0], {network.name: network}, 0)


def earlier(course: Course = OVER, before: str = "") -> Earlier:
    """A run that was to learn a to f, after another that learned `before`."""
    learner = make_learner(setting("sklearn.SGD"))
    learner.learn(*sample(20))
    images = index(before + "abcdef", "l" * (6 + len(before)))[["digest", "label"]]
    images["run"] = [False] * len(before) + [True] * 6
    state = LearnedState("sklearn.SGD", {}, "batch", NETWORK.key, LABELS, images, course)
    split = index("abcdefgh" + before, "llllllvt" + "l" * len(before))
    return Earlier("run", state, learner, learner.head(), split)


def test_images_that_were_used_keep_their_part_and_new_ones_are_learned() -> None:
    now = index("bcdefghijk", "tvllllltvl")  # as another split would have it
    found = earlier().with_parts(prepared(now), given=False)
    expected = dict(zip("bcdefghijk", "lllllvtlll", strict=True))
    named = {"l": "train", "v": "validation", "t": "test"}
    assert dict(zip(found.index["digest"], found.index["part"], strict=True)) == {
        digest: named[part] for digest, part in expected.items()
    }
    given = earlier().with_parts(prepared(now), given=True)
    assert list(given.index["part"][-3:]) == ["test", "validation", "train"]
    folds = now.assign(part=["fold-0", "fold-1"] * 5)
    dealt = earlier().with_parts(prepared(folds), given=False)
    assert list(dealt.index["part"][-3:]) == ["fold-1", "fold-1", "fold-1"]


def test_what_was_not_learned_is_learned_from_the_beginning() -> None:
    table = index("abcdefghij", "llllllvtll")
    rows, course = earlier().to_learn(rows_to_learn(prepared(table)), COURSE)
    assert (list(rows["digest"]), course) == (["i", "j"], COURSE)
    nothing, _ = earlier().to_learn(rows_to_learn(prepared(table[:8])), COURSE)
    assert nothing.empty
    twice = earlier(before="i")
    rows, _ = twice.to_learn(rows_to_learn(prepared(table)), COURSE)
    assert list(rows["digest"]) == ["j"]


@pytest.mark.parametrize(("epoch", "learned"), [(1, 4), (2, 2)])
def test_a_run_that_was_stopped_goes_on_if_its_images_are_the_same(epoch: int, learned: int) -> None:
    stopped = replace(COURSE, epoch=epoch, learned=learned)
    run = earlier(stopped, before="z")
    same = rows_to_learn(prepared(index("fedcbazgh", "lllllllvt")))
    rows, course = run.to_learn(same, COURSE)
    assert (list(rows["digest"]), course) == (list("abcdef"), stopped)
    # With one image more, or another batch, what was covered once is learned.
    covered = set("abcdef") if epoch == 2 else {"abcdef"[n] for n in drawn_order(6, 3, 1)[:learned]}
    more = rows_to_learn(prepared(index("fedcbazighj", "llllllllvtt")))
    rows, course = run.to_learn(more, COURSE)
    assert (set(rows["digest"]), course) == ({*"abcdefi"} - covered, COURSE)
    other = replace(COURSE, batch=3)
    rows, course = run.to_learn(same, other)
    assert (set(rows["digest"]), course) == ({*"abcdef"} - covered, other)
    assert set(run.learned()["digest"]) == covered | {"z"}


def test_what_is_new_gone_and_in_another_class_is_said() -> None:
    run = earlier()
    table = index("bcdefgij", "lllllvll", "yxyxxxxx")  # f was in y
    new = table[-2:]
    said = list(run.notes(prepared(table), new))
    assert said == [
        "2 of 8 images were not learned yet: x 2",
        "1 images that were learned are not there any more: what was learned of them stays",
        "1 images have another class now than when they were learned, which stays learned",
        "1 of 1 test images are not there any more",
    ]
    same = index("abcdefgh", "llllllvt")
    assert list(run.notes(prepared(same), same.iloc[:0])) == []


def test_other_classes_and_another_network_are_refused() -> None:
    run = earlier()
    table = index("abcdefgh", "llllllvt")
    run.check(prepared(table))
    with pytest.raises(ExperimentError, match=r"there is no y and there is now z\. Learn anew"):
        run.check(prepared(table, ("x", "z")))
    gabor = replace(NETWORK, name="GaborNet", digest="b" * 64)
    with pytest.raises(ExperimentError, match="The network GaborNet is not the one whose features"):
        run.check(prepared(table, network=gabor))


def test_what_learns_may_not_change_and_how_may() -> None:
    def made(**learn):
        data = {"name": "e", "images": "i", "learn": {"backbone": "VGG16"} | learn}
        return experiment_of(data, "here").for_learning()

    check_same_learning(made(), made(batch=5, epochs=9, metric="f1"), "run")
    with pytest.raises(ExperimentError, match=r"The run 5 cannot be gone on with: learn\.seed was 42 and"):
        check_same_learning(made(), made(seed=1), "5")
    said = r"learn\.classifier\.name was river\.LogisticRegression and is sklearn\.SGD\."
    with pytest.raises(ExperimentError, match=f"cannot be gone on with: {said}"):
        check_same_learning(made(), made(classifier="sklearn.SGD"), "5")
    with pytest.raises(ExperimentError, match=r"learn\.classifier\.lr was not set and is 0\.5\."):
        check_same_learning(made(), made(classifier={"name": "river.LogisticRegression", "lr": 0.5}), "5")
    with pytest.raises(ExperimentError, match=r"learn\.backbone\.name was VGG16 and is VGG19\."):
        check_same_learning(made(), made(backbone="VGG19"), "5")


def test_a_run_with_which_another_goes_on_is_refused_and_one_that_was_killed_ends(
    store: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_SETTLE_SECONDS", 0.0)
    client = store.client()
    first = client.create_run(store.experiment_id).info.run_id
    experiment = experiment_of(
        {"name": "e", "images": "i", "learn": {"backbone": "VGG16"}}, "here"
    ).for_learning()
    found = EarlierSearch(store, first, experiment, None, "RUNNING", datetime.now())
    after = client.create_run(store.experiment_id, tags={names.LEARNED_BEFORE: first}).info.run_id
    other = Heartbeat(store)
    with other.beating(after):
        with pytest.raises(TrackingError, match=f"The run {after}, which goes on with {first}, is still"):
            claim(found, Heartbeat(store, "run"))
        assert client.get_run(first).info.status == "RUNNING"
        claim(found, Heartbeat(store, "run"), force=True)
        assert other._other(after) is not None  # it will see that, and end
    client.set_terminated(after)
    claim(found, Heartbeat(store, "run"))
    assert client.get_run(first).info.status == "KILLED"
