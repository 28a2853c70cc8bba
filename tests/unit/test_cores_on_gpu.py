"""The ways of a GPU in small on a CPU; those that need a GPU are left out and say so."""

import pytest

torch = pytest.importorskip("torch")

from benchmarks import bench_cores, cores_on_gpu  # noqa: E402


def test_every_way_keeps_the_numbers_and_what_needs_a_gpu_says_so(monkeypatch, capsys):
    small = lambda *_, **__: setting  # noqa: E731
    setting = cores_on_gpu.Setting("cpu", 2, size=12, steps=2, turns=1)
    monkeypatch.setattr(cores_on_gpu, "Setting", small)
    verdicts = bench_cores.measure_on_gpu("cpu", is_quick=True)
    assert len(verdicts) == 2 * sum(way.launch == "eager" for way in cores_on_gpu.WAYS)
    assert all(verdict.endswith("met") for verdict in verdicts)
    printed = capsys.readouterr().out
    assert printed.count("no GPU here") == 2 * sum(way.launch != "eager" for way in cores_on_gpu.WAYS)


def test_a_wrong_number_is_a_miss(monkeypatch):
    setting = cores_on_gpu.Setting("cpu", 1, size=6, steps=2, turns=1)
    core = bench_cores.CORES["convlstm-3"]
    x = core.sequence(6, 2)
    ours, usual = (cores_on_gpu.Outputs(one, bench_cores.forward) for one in (core.ours(), core.usual()))  # other weights
    verdicts = cores_on_gpu.measure(setting, (ours, usual), core.gigaflops(x), x)
    assert {"ours" in one for one in verdicts if one.endswith("MISSED")} == {True}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_measured(capsys):
    assert bench_cores.measure_on_gpu("cuda", is_quick=True) == []
    assert "no GPU here" in capsys.readouterr().out
