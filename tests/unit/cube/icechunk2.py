"""Carried out by an interpreter that has Icechunk 2, and nothing of driftline: icechunk2.py read|create|upgrade|commit FOLDER."""

import hashlib
import json
import sys

import icechunk
import xarray as xr
import zarr


def read(repository: icechunk.Repository) -> dict:
    """What Xarray finds of every version, newest first."""
    found = {}
    for entry in repository.ancestry(branch="main"):
        if entry.parent_id is None:
            continue
        store = repository.readonly_session(snapshot_id=entry.id).store
        cube = xr.open_zarr(store, consolidated=False, chunks=None, mask_and_scale=False)
        arrays = {str(name): hashlib.sha256(array.values.tobytes()).hexdigest() for name, array in cube.data_vars.items()}
        found[entry.id] = {
            "arrays": arrays,
            "time": [str(time) for time in cube["time"].values.astype("datetime64[ns]")],
            "scene_id": [str(name) for name in cube["scene_id"].values],
            "attributes": dict(cube.attrs),
            "bands": cube["image"].attrs["bands"],
            "message": entry.message,
        }
    return found


def main(verb: str, folder: str) -> dict:
    storage = icechunk.local_filesystem_storage(folder)
    if verb == "create":
        session = icechunk.Repository.create(storage).writable_session("main")
        zarr.create_group(session.store).create_array("image", shape=(2,), dtype="float32")
        return {"snapshot": session.commit("by Icechunk 2")}
    repository = icechunk.Repository.open(storage)
    match verb:
        case "read":
            return read(repository)
        case "upgrade" | "upgrade-and-keep":
            icechunk.upgrade_icechunk_repository(repository, dry_run=False, delete_unused_v1_files=verb == "upgrade")
            return {}
        case "tag":
            repository.create_tag("seen", repository.lookup_branch("main"))
            return {}
        case _:
            session = repository.writable_session("main")
            zarr.open_group(session.store, mode="a").attrs["note"] = "by Icechunk 2"
            return {"snapshot": session.commit("by Icechunk 2")}


if __name__ == "__main__":
    print(json.dumps({"icechunk": icechunk.__version__, "zarr": zarr.__version__, "found": main(*sys.argv[1:])}))
