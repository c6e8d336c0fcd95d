import io
import time

from rich.console import Console

from tuner.extraction.job import extraction_progress


def test_extraction_tells_images_a_second_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=False)
    with extraction_progress(console, "VGG16", 10) as report:
        report(4, 10)
        time.sleep(0.05)
        report(10, 10)
    assert "VGG16: 10 images, " in console.file.getvalue()
    assert "images/s" in console.file.getvalue()


def test_extraction_shows_a_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with extraction_progress(console, "VGG16", 10) as report:
        report(10, 10)
    assert "10/10" in console.file.getvalue()
    assert "images/s" in console.file.getvalue()
