"""Malicious and broken files: each is refused with its reason, and no other file is opened."""

import http.server
import threading

import h5py
import numpy as np
import pytest
import rasterio
from source_rasters import UTM, ramp, write_cube, write_tiff

from pipelines.errors import MissingInput, SceneRefused
from pipelines.sources import opening
from pipelines.sources.opening import hdf5_data_set, hdf5_data_sets, open_hdf5, open_raster


def reason_of(path, indexes=None) -> str:
    with pytest.raises(SceneRefused) as refusal, open_raster(path, indexes) as dataset:
        dataset.read()
    return refusal.value.reason


def test_a_good_geotiff_opens(tmp_path):
    with open_raster(write_tiff(tmp_path / "a.tif")) as dataset:
        np.testing.assert_array_equal(dataset.read(1), ramp())


def test_missing_is_missing(tmp_path):
    with pytest.raises(MissingInput, match="no such file"), open_raster(tmp_path / "a.tif"):
        pass


def test_empty_file_text_file_and_folder(tmp_path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "folder.tif").mkdir()
    assert reason_of(tmp_path / "empty.tif") == "truncated"
    assert reason_of(tmp_path / "text.tif") == "driver"
    assert reason_of(tmp_path / "folder.tif") == "unreadable"


def test_vrt_named_tif_opens_no_file_and_no_url(tmp_path):
    secret = write_tiff(tmp_path / "outside" / "secret.tif")
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"/vsicurl/http://127.0.0.1:{server.server_port}/x.tif"
        for source in (str(secret), url):
            vrt = tmp_path / "scene.tif"
            vrt.write_text(
                f'<VRTDataset rasterXSize="56" rasterYSize="40"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
                f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
                "</SimpleSource></VRTRasterBand></VRTDataset>"
            )
            with pytest.raises(SceneRefused, match="neither GeoTIFF nor JPEG2000"), open_raster(vrt):
                pass
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_geotiff_is_refused(tmp_path, options, kept):
    whole = write_tiff(tmp_path / "whole.tif", ramp(), ramp(start=9), **options).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    assert reason_of(cut) in ("truncated", "unreadable")


def test_truncation_that_gdal_ignores_is_refused(tmp_path):
    """The last strip of the last band is short by a few bytes: only its offset and byte count show it."""
    path = write_tiff(tmp_path / "a.tif", ramp(), interleave="band")
    path.write_bytes(path.read_bytes()[:-3])
    assert reason_of(path) == "truncated"


def test_only_requested_bands_must_be_complete(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp(), ramp(), interleave="band")
    path.write_bytes(path.read_bytes()[:-3])
    with open_raster(path, (1,)) as dataset:
        np.testing.assert_array_equal(dataset.read(1), ramp())
    assert reason_of(path, (2,)) == "truncated"


def test_a_missing_band_is_named(tmp_path):
    assert reason_of(write_tiff(tmp_path / "a.tif"), (2,)) == "missing-band"


def test_too_large_is_refused_before_anything_is_allocated(tmp_path, monkeypatch):
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": UTM.affine, "count": 1, "dtype": "uint8"}
    sparse = {"sparse_ok": True, "tiled": True, "compress": "deflate", "height": 70_000, "width": 70_000}
    with rasterio.open(tmp_path / "bomb.tif", "w", **profile, **sparse):
        pass
    assert reason_of(tmp_path / "bomb.tif") == "too-large"
    monkeypatch.setattr(opening, "MAX_BLOCK_BYTES", 1000)
    with pytest.raises(SceneRefused, match="rewrite it in tiles"), open_raster(write_tiff(tmp_path / "b.tif", blockysize=40)):
        pass


def test_sidecar_files_are_ignored(tmp_path):
    path = write_tiff(tmp_path / "a.tif", nodata=0)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:4326</SRS><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    write_tiff(tmp_path / "a.tif.ovr", np.zeros((20, 28), "uint16"))
    write_tiff(tmp_path / "a.tif.msk", np.zeros((40, 56), "uint8"))
    with open_raster(path) as dataset:
        assert dataset.nodata == 0
        assert dataset.crs.to_epsg() == 32633
        assert dataset.overviews(1) == []
        assert dataset.files == [str(path)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tfw", "a.tif", "a.tif.aux.xml", "a.tif.msk", "a.tif.ovr"]


def test_complex_bands_are_refused(tmp_path):
    assert reason_of(write_tiff(tmp_path / "a.tif", ramp(dtype="complex64"))) == "wrong-dtype"


@pytest.mark.parametrize("kept", [0.3, 0.8, 0.99])
def test_truncated_jpeg2000_is_refused(tmp_path, kept):
    whole = write_tiff(tmp_path / "whole.jp2", driver="JP2OpenJPEG", quality=100, reversible=True).read_bytes()
    with open_raster(tmp_path / "whole.jp2") as dataset:
        np.testing.assert_array_equal(dataset.read(1), ramp())
    (tmp_path / "cut.jp2").write_bytes(whole[: int(len(whole) * kept)])
    assert reason_of(tmp_path / "cut.jp2") == "truncated"


def hdf5_reason(path, name="image") -> str:
    with pytest.raises(SceneRefused) as refusal, open_hdf5(path) as file:
        hdf5_data_set(file, name, path.name)[:]
    return refusal.value.reason


def test_hdf5_references_to_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["image"] = ramp()
    (tmp_path / "raw").write_bytes(ramp().tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["external"] = h5py.ExternalLink("secret.h5", "/image")
        file["soft"] = h5py.SoftLink("/external")
        file["group"] = h5py.ExternalLink("secret.h5", "/")
        file.create_dataset("raw", shape=(40, 56), dtype="uint16", external=[(str(tmp_path / "raw"), 0, 4480)])
        layout = h5py.VirtualLayout((40, 56), "uint16")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "image", (40, 56))
        file.create_virtual_dataset("virtual", layout)
        file["text"] = "hello"
        file["here"] = ramp()
    for name in ("external", "soft", "group/image", "raw", "virtual"):
        assert hdf5_reason(tmp_path / "a.h5", name) == "driver", name
    assert hdf5_reason(tmp_path / "a.h5", "text") == "wrong-dtype"
    with open_hdf5(tmp_path / "a.h5") as file:
        assert "external" not in hdf5_data_sets(file)
        np.testing.assert_array_equal(hdf5_data_set(file, "here", "a")[:], ramp())
    with pytest.raises(SceneRefused, match="there are: here"), open_hdf5(tmp_path / "a.h5") as file:
        hdf5_data_set(file, "nowhere", "a")


def test_an_hdf5_heap_that_never_ends_is_refused(tmp_path):
    """The library reads an object of no length in a global heap for ever."""
    path = write_cube(tmp_path / "a.nc", {"b1": ramp()[None]}, [0])
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[at + 8 : at + 16] = bytes(8)  # the length of the free space
    path.write_bytes(content)
    with pytest.raises(SceneRefused, match="global heap"), open_hdf5(path):
        pass


def test_errors_of_our_own_are_no_refusals(tmp_path):
    with pytest.raises(KeyError, match="ours"), open_raster(write_tiff(tmp_path / "a.tif")):
        raise KeyError("ours")


def test_overviews_must_be_complete_too(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    path.write_bytes(path.read_bytes()[:-3])
    assert reason_of(path) == "truncated"


def test_broken_hdf5_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = ramp()
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:-100])
    (tmp_path / "classic.nc").write_bytes(b"CDF\x01" + bytes(100))
    (tmp_path / "empty.h5").touch()
    assert hdf5_reason(tmp_path / "cut.h5") == "truncated"
    assert hdf5_reason(tmp_path / "empty.h5") == "truncated"
    with pytest.raises(SceneRefused, match="nccopy"), open_hdf5(tmp_path / "classic.nc"):
        pass
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("image", shape=(100_000, 100_000), dtype="uint8", chunks=(1000, 1000))
    assert hdf5_reason(tmp_path / "bomb.h5") == "too-large"
