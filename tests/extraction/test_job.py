import io
import time

from rich.console import Console

from tuner.extraction.job import ExtractionProgress


def test_extraction_tells_images_a_second_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=False)
    with ExtractionProgress(console) as progress, progress.of("VGG16", 10) as report:
        report(4, 10)
        time.sleep(0.05)
        report(10, 10)
    assert "VGG16: 10 images, " in console.file.getvalue()
    assert "images/s" in console.file.getvalue()


def test_extraction_shows_a_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with ExtractionProgress(console) as progress, progress.of("VGG16", 10) as report:
        report(10, 10)
    assert "10/10" in console.file.getvalue()
    assert "images/s" in console.file.getvalue()


def test_networks_that_go_at_once_have_a_bar_each():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with (
        ExtractionProgress(console) as progress,
        progress.of("VGG16", 10) as one,
        progress.of("ResNet50", 7) as other,
    ):
        one(10, 10)
        other(7, 7)
    assert all(text in console.file.getvalue() for text in ("VGG16", "10/10", "ResNet50", "7/7"))
