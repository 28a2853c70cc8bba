"""`--restart` removes states, and nothing else that lies beside them."""

from pathlib import Path

from pipelines.monitoring.context import forget
from pipelines.stored_files import FolderFiles


def test_only_states_and_their_networks_are_forgotten(tmp_path: Path) -> None:
    states = ("harmonic/monitoring.json", "harmonic/b0/header.json", "old/watch.json", "recurrent/networks/a/model.json")
    others = ("alerts/2020.json", "cube/refs/main", "model/networks/a/model.json", "products/index.json", "stages/monitor.json")
    for name in (*states, *others, "monitoring.json"):
        FolderFiles(tmp_path).write(name, b"{}")
    forget(str(tmp_path), str(tmp_path / "nothing"))
    assert FolderFiles(tmp_path).names("") == sorted((*others, "monitoring.json"))
    assert not (tmp_path / "harmonic").exists()
