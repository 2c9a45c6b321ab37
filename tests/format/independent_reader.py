"""A reader of stores, written from docs/format.md alone: nothing of softcask, nor of Zarr, is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google_crc32c import value as crc
from numcodecs import blosc
from tests.format.independent_lowrank import lowrank

Dict = dict[str, Any]


class IndependentReader:
    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.document("softcask.json")
        number = self.document("catalog/newest.json")["generation"]
        while (self.root / f"catalog/{number + 1:08d}/generation.json").exists():
            number += 1
        sealed = self.document(f"catalog/{number:08d}/generation.json")
        kinds = ("/segment.json", "/teacher.json")
        found = [self.document(r["key"], r) for r in sealed["manifests"] if r["key"].endswith(kinds)]
        self.teachers = {each["name"]: each for each in found if each["softcask"] == "teacher"}
        commits = [row for table in sealed["tables"] for row in self.table(table).to_pylist()]
        self.records = {each["key"]: each for commit in commits for each in commit["objects"]}
        dropped = sealed.get("dropped", {}).get("rows")
        self.rows = {
            row["sample_id"]: (segment, place)
            for segment in found
            if segment["softcask"] == "segment"
            for place, row in enumerate(self.table(segment["table"]).to_pylist())
            if row["quarantine"] is None
        }
        for name in self.table(dropped)["sample_id"].to_pylist() if dropped else ():
            self.rows.pop(name, None)

    def object(self, record: Dict) -> bytes:
        data = (self.root / record["key"]).read_bytes()
        assert (len(data), f"{crc(data):08x}") == (record["size"], record["crc32c"]), record["key"]
        return data

    def document(self, key: str, record: Dict | None = None) -> Dict:
        data = self.object(record) if record else (self.root / key).read_bytes()
        assert int(data[-12:-4], 16) == crc(data[:-12] + b"00000000" + data[-4:]), key
        body = json.loads(data)
        assert body["format_version"] == 1, key
        return body

    def table(self, record: Dict) -> pa.Table:
        return pq.ParquetFile(pa.BufferReader(self.object(record))).read()

    def soft_targets(self, teacher: str, sample_ids: list[str], temperature: float) -> np.ndarray:
        logits = [self.logits(self.teachers[teacher], *self.rows[name], temperature) for name in sample_ids]
        powers = np.exp(np.array(logits, dtype=np.float64) / temperature)
        found = np.zeros((len(sample_ids), self.teachers[teacher]["num_classes"]))
        stored = np.delete(np.arange(found.shape[1]), self.teachers[teacher].get("absent_classes", []))
        found[:, stored] = powers / powers.sum(axis=1, keepdims=True)
        return found

    def logits(self, teacher: Dict, segment: Dict, place: int, temperature: float) -> np.ndarray:
        codec, index = teacher["codec"], place // segment["unit_rows"]
        C = teacher["num_classes"] - len(teacher.get("absent_classes", []))
        self.folder = f"teachers/{teacher['name']}/logits/{segment['segment']}/v0000"
        if codec["name"] == "lowrank":
            arrays = {name: self.object(record) for name, record in codec["arrays"].items()}
            part = self.table(self.records[f"{self.folder}/part-{index:08d}.parquet"])
            row = {name: part[name].to_numpy()[part["row"].to_numpy() == place] for name in part.column_names}
            return lowrank(codec["configuration"], arrays, row)

        def read(name: str, dtype: str, width: int) -> np.ndarray:
            key = f"{self.folder}/{name}/c/{index}/0"
            return self.column(key, np.dtype((dtype, width)), place, segment["unit_rows"], codec)

        if codec["name"] == "dense16":
            return read("logits", "<f2", C)
        if codec["name"] == "dense8":
            tops, steps = (np.repeat(read(name, "<f2", -(-C // 64)), 64)[:C] for name in ("tops", "steps"))
            return tops - steps * read("codes", "u1", C)
        grid, K = codec["configuration"]["temperatures"], codec["configuration"]["head_size"]
        head, odds = read("logits", "<f2", K), read("tail", "<f2", len(grid))
        mass = [np.log(np.exp(head / t).sum()) - np.log(max(C - K, 1)) for t in grid]
        even = np.interp(np.log(temperature), np.log(grid), grid * (odds + mass))
        logits = np.full(C, min(0, even))
        logits[read("classes", "<u2" if C <= 65536 else "<u4", K).astype(int)] = head
        return logits

    def column(self, key: str, dtype: np.dtype, place: int, unit: int, codec: Dict) -> np.ndarray:
        data = self.object(self.records[key])
        most = min(unit, max(1, (1 << 20) // dtype.itemsize))
        rows = next(rows for rows in range(most, 0, -1) if unit % rows == 0)
        index = np.frombuffer(data[-4 - 16 * (unit // rows) : -4], "<u8").reshape(-1, 2)
        first, size = index[place % unit // rows].tolist()
        chunk = data[first : first + size - 4]
        assert crc(chunk) == int.from_bytes(data[first + size - 4 : first + size], "little"), key
        chunk = blosc.decompress(chunk) if codec.get("compression") == "blosc" else chunk
        return np.frombuffer(chunk, dtype)[place % unit % rows].astype(np.float64)
