"""Each hostile or odd input of the corpus has the outcome that it states."""

import io
import random
import resource
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from tests.helpers import corpus
from tests.helpers.corpus import IMAGE_CASES, SOURCE_CASES, Case
from tuner.base.choices import Decoding
from tuner.base.errors import ImageError, ImageSourceError
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings
from tuner.extraction.cache import FeatureCache
from tuner.images.decoding import decode_image, load_input
from tuner.images.index import index_images
from tuner.images.sources import read_images
from tuner.images.splits import split_images
from tuner.preparation.images import PreparedImages, prepare_images
from tuner.spark.sessions import DriverSession


def cases(some: tuple[Case, ...]):
    return pytest.mark.parametrize("case", some, ids=lambda case: case.name)


def test_the_corpus_has_forty_cases_and_more_each_with_a_name_of_its_own():
    names = [case.name for case in (*IMAGE_CASES, *SOURCE_CASES)]
    assert len(names) == len(set(names)) >= 40


# Images: all of them in one folder, through one preparation ----------------------------------------


@pytest.fixture(scope="module")
def prepared(
    driver: DriverSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PreparedImages, str]:
    folder = tmp_path_factory.mktemp("corpus")
    root = folder / "[" / "red]"  # what a terminal's markup would take for its own, or fail on
    corpus.make_images(root)
    (root / "loose.png").write_bytes(b"of no class")
    experiment = Experiment(name="corpus", images=str(root), search=SearchSettings(backbone="GaborNet"))
    console = Console(file=io.StringIO(), width=200)
    found = prepare_images(driver, experiment, FeatureCache(folder / "cache"), console)
    return root, found, console.file.getvalue()


def of_case(rows: pd.DataFrame, root: Path, case: Case) -> pd.DataFrame:
    """The rows whose file is the case's: <class>/<case>/…"""
    return rows[rows["path"].map(lambda path: Path(path).relative_to(root).parts[1] == case.name)]


@pytest.mark.long
@cases(IMAGE_CASES)
def test_an_image_is_used_or_in_the_quarantine_with_its_reason(prepared, case: Case):
    root, found, _ = prepared
    used, left_out = of_case(found.index, root, case), of_case(found.quarantine, root, case)
    if case.outcome == "used":
        assert len(used) >= 1
        assert left_out.empty
    else:
        assert used.empty
        assert len(left_out) == len(list((root / corpus.OTHER / case.name).glob("*"))) + 1
        assert left_out["reason"].str.contains(case.reason).all(), list(left_out["reason"])


def test_no_file_is_skipped_in_silence_and_none_counts_twice(prepared):
    root, found, _ = prepared
    paths = [*found.index["path"], *found.quarantine["path"]]
    assert len(paths) == len(set(paths))
    made = [path for path in root.glob("*/**/*") if not path.is_dir()]  # the links to folders are none
    assert len(paths) == len(made) > len(IMAGE_CASES)


def test_what_is_left_out_is_told_and_label_conflicts_apart(prepared):
    root, found, printed = prepared
    assert f"1 file(s) directly in {root} belong to no class" in printed
    total = len(found.index) + len(found.quarantine)
    assert f"{len(found.quarantine)} of {total} images cannot be used: see quarantine.csv" in printed
    assert "2 of them are in conflict over their label" in printed


# Sources: folders and Parquets ---------------------------------------------------------------------


@cases(SOURCE_CASES)
def test_a_source_is_used_or_refused_in_one_sentence(driver: DriverSession, tmp_path: Path, case: Case):
    case.make(tmp_path)

    def split() -> pd.DataFrame:
        index = index_images(read_images(driver.spark, str(tmp_path)))
        readable = index[index["error"].isna()]
        split_images(readable, Fraction(1, 5), "holdout", Fraction(1, 5), seed=42)
        return index

    if case.outcome == "used":
        index = split()
        assert index["label"].nunique() >= 2
        assert len(index) >= 10
        return
    with pytest.raises(ImageSourceError, match=case.reason) as caught:
        split()
    assert "\n" not in str(caught.value)
    assert "Exception" not in str(caught.value)


# Pixels -------------------------------------------------------------------------------------------


def file_of(name: str, tmp_path: Path) -> bytes:
    corpus.USED_IMAGES[name](tmp_path)
    return next(path for path in tmp_path.iterdir()).read_bytes()


def test_a_cmyk_image_has_the_colours_that_its_inks_make():
    inks = {
        (0, 255, 255, 0): "red",
        (255, 0, 255, 0): "lime",
        (255, 255, 0, 0): "blue",
        (0, 0, 0, 255): "black",
    }
    for ink, colour in inks.items():
        for kind in ("JPEG", "TIFF"):
            found = decode_image(corpus.encoded(Image.new("CMYK", (16, 16), ink), kind))
            expected = np.asarray(Image.new("RGB", (1, 1), colour))[0, 0].astype(int)
            assert np.abs(found - expected).max() <= 3, (kind, colour)


def test_what_is_transparent_is_the_ground_and_no_colour_below_it(tmp_path: Path):
    for name, place in (
        ("png of which nothing is opaque", 0),
        ("png of 16 bits with a transparent gray", 1),
    ):
        (tmp_path / name).mkdir()
        content = file_of(name, tmp_path / name)
        for ground, value in (("white", 255), ("black", 0)):
            assert (
                decode_image(content, decoding=Decoding(ground)).reshape(-1, 3)[place].tolist()
                == [value] * 3
            )


def test_a_little_transparent_palette_of_every_format_is_mixed_with_its_ground(tmp_path: Path):
    for name in (
        "png with a palette",
        "png with alpha",
        "webp with alpha",
        "tiff with alpha",
        "png with gray and alpha",
    ):
        (tmp_path / name).mkdir()
        content = file_of(name, tmp_path / name)
        image = Image.open(io.BytesIO(content)).convert("RGBA")
        for ground in ("white", "black"):
            laid = Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
            found = decode_image(content, decoding=Decoding(ground)).astype(int)
            assert np.abs(found - np.asarray(laid)).max() <= 1, (name, ground)


def test_values_are_scaled_by_one_rule_and_by_the_white_that_is_stated(tmp_path: Path):
    expected = {
        ("png of 12 bits in 16", None): (0, 16),
        ("png of 12 bits in 16", 4095): (0, 255),
        ("tiff of whole numbers of 32 bits", None): (0, 255),
        ("tiff of floats beyond 1", None): (0, 255),
        ("tiff of floats beyond 1", 255): (0, 255),
    }
    for (name, white), (low, high) in expected.items():
        (tmp_path / f"{name} {white}").mkdir()
        found = decode_image(
            file_of(name, tmp_path / f"{name} {white}"), decoding=Decoding(max_value=white)
        )
        assert (found.min(), found.max()) == (low, high), name


def test_a_rotated_photograph_is_upright_and_a_wrong_orientation_is_none(tmp_path: Path):
    for name, shape in (("exif rotated", (32, 24, 3)), ("exif of no meaning", (24, 32, 3))):
        folder = tmp_path / name
        folder.mkdir()
        assert decode_image(file_of(name, folder)).shape == shape


def test_16_bits_keep_their_levels(tmp_path: Path):
    for name, expected in (("png of 16 bits", range(0, 65536, 64)), ("png of 16 bits a colour", None)):
        folder = tmp_path / name
        folder.mkdir()
        found = decode_image(file_of(name, folder))
        if expected is None:
            assert found.tolist() == [[[255, 128, 0]]]
        else:
            assert np.abs(found[..., 0].ravel() - np.array(expected) / 257).max() <= 1


@pytest.mark.parametrize(
    "name", ["gif animated", "png animated", "webp animated", "tiff of pages", "jpeg of two pictures"]
)
def test_of_several_pictures_the_first_counts(name: str, tmp_path: Path):
    found = decode_image(file_of(name, tmp_path))
    first = {
        "gif animated": "gif",
        "png animated": "apng",
        "webp animated": "webp",
        "tiff of pages": "tiff",
    }
    expected = np.asarray(corpus.picture(first.get(name, "mpo"))).astype(int)
    others = [np.asarray(corpus.picture(f"{first.get(name, 'mpo')} {number}")) for number in range(3)]
    difference = np.abs(found - expected).mean()
    assert difference < min(np.abs(found - other.astype(int)).mean() for other in others) / 1.5


def test_a_bit_is_black_or_white(tmp_path: Path):
    assert set(np.unique(decode_image(file_of("png of 1 bit", tmp_path)))) == {0, 255}


def test_a_profile_changes_no_pixel():
    """As in Keras: networks were trained on pixels as they are stored."""
    image = corpus.picture("profile")
    plain = decode_image(corpus.encoded(image, "PNG"))
    np.testing.assert_array_equal(
        decode_image(corpus.encoded(image, "PNG", icc_profile=corpus.srgb())), plain
    )


# Fuzzing the decoder ------------------------------------------------------------------------------

_FUZZ_PIXELS = 10**7  # a damaged header can claim all that is allowed, and time and memory are by the pixel
_SPECIAL = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\x80\0", b"\xff\xd9")


def damage(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, removed, added or doubled; mostly near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        reach = len(changed) if rng.random() < 0.5 else min(len(changed), 120)
        place = rng.randrange(max(reach, 1))
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                special = rng.choice(_SPECIAL)
                changed[place : place + len(special)] = special
            case 2:
                del changed[place : place + rng.randrange(1, 9)]
            case 3:
                changed[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                changed[place:place] = changed[place : place + rng.randrange(1, 200)]
            case 5:
                if rng.random() < 0.2:
                    del changed[place:]
    return bytes(changed)


def seeds() -> list[bytes]:
    """A valid file of every format and of the odder kinds of each."""
    image = corpus.picture("fuzz")
    return [
        *(corpus.encoded(image, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")),
        corpus.encoded(image, "JPEG", progressive=True, exif=corpus.exif(6), icc_profile=corpus.srgb()),
        corpus.encoded(image.convert("CMYK"), "JPEG"),
        corpus.encoded(image, "MPO", **corpus.frames("fuzz")),
        corpus.encoded(image.quantize(16), "PNG", transparency=bytes(range(16)), exif=corpus.exif(3)),
        corpus.encoded(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), "PNG"),
        corpus.encoded(image, "PNG", **corpus.frames("fuzz")),
        corpus.encoded(image, "GIF", **corpus.frames("fuzz")),
        corpus.encoded(image.quantize(16), "BMP"),
        corpus.encoded(image, "WEBP", **corpus.frames("fuzz")),
        corpus.encoded(image, "WEBP", lossless=True, exif=corpus.exif(8)),
        corpus.encoded(image, "TIFF", **corpus.frames("fuzz")),
        *(corpus.encoded(image, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_deflate")),
        corpus.encoded(Image.fromarray(np.ones((20, 30), np.float32)), "TIFF"),
    ]


def fuzz(number: int, seconds: float, seed: int) -> None:
    """Decode damaged files; runs in a process of its own, with bounded memory; seconds are the CPU's."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
    rng, started, done, read, slowest = random.Random(seed), time.process_time(), 0, 0, 0.0
    files = seeds()
    while done < number and time.process_time() - started < seconds:
        content = damage(rng.choice(files), rng)
        before = time.process_time()
        try:
            found = decode_image(content, _FUZZ_PIXELS)
            assert found.dtype == np.uint8
            assert found.ndim == 3
            assert found.shape[2] == 3
            assert found.size > 0
            assert load_input(content, (8, 9), "tf").shape == (8, 9, 3)
            read += 1
            reason = "none"
        except ImageError as error:
            reason = str(error)
        except BaseException:
            print(f"content = {content!r}", file=sys.stderr)
            raise
        assert reason
        assert "\n" not in reason
        slowest = max(slowest, time.process_time() - before)
        done += 1
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the process that forked
    peak = int(status.partition("VmHWM:")[2].split()[0]) // 2**10
    print(done, read, round(slowest, 3), peak)


@pytest.mark.long
@pytest.mark.parametrize(("number", "seconds", "seed"), [(6_000, 15, 1), (500_000, 120, 2)])
def test_damaged_files_of_every_format_give_pixels_or_an_image_error(
    number: int, seconds: float, seed: int
):
    code = f"from tests.product import test_corpus; test_corpus.fuzz({number}, {seconds}, {seed})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    tried, read, slowest, peak = map(float, done.stdout.split())
    assert tried >= 2_000
    assert 0.05 * tried < read < 0.95 * tried  # else the damage is too much or too little to tell
    assert slowest < 2
    assert peak < 1_000  # MiB
