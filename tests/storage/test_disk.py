from pathlib import Path

from tuner.storage.disk import DiskFolder


def test_a_folder_of_this_machine_is_listed_read_and_emptied(tmp_path: Path) -> None:
    folder = DiskFolder(tmp_path / "a")
    assert folder.entries() == folder.entries("b") == []
    assert folder.read_text("b") is None
    folder.remove("b")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("ä", encoding="utf-8")
    assert [(entry.name, entry.is_folder) for entry in folder.entries()] == [("b", True)]
    (entry,) = folder.entries("b")
    assert entry == ("c", 2, False, (tmp_path / "a" / "b" / "c").stat().st_mtime)
    assert folder.read_text("b/c") == "ä"
    folder.remove("b/c")
    assert folder.entries("b") == []
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    assert [entry.name for entry in folder.entries()] == ["b"]
    folder.remove("b")
    assert folder.entries() == []
