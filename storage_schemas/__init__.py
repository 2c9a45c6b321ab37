"""The ground floor: what is on disk. numpy, pyarrow and pydantic; never ray, torch, zarr or fsspec."""
