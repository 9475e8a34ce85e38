"""Pairs from real files in every layout: each image is found again, and what can't be learnt from is counted."""

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deradiff.align.pairs import Pair, Pairs, read_pairs, write_pairs
from deradiff.errors import AlignError, TableError

SCHEMA = pa.schema(
    {
        "caption": pa.string(),
        "jpg_0": pa.binary(),
        "jpg_1": pa.binary(),
        "label_0": pa.float64(),
        "label_1": pa.float64(),
    }
)


def grey(level: int, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (level,) * 3).save(file, kind)
    return file.getvalue()


def noise(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def levels(data: Pairs) -> list[tuple[str, Any, Any, float]]:
    """What is read, with the grey of each image."""
    grey_of = {key: data.image(key).getpixel((5, 5))[0] for pair in data.pairs for key in (pair.chosen, pair.rejected)}  # pyright: ignore
    return [(pair.prompt, grey_of[pair.chosen], grey_of[pair.rejected], pair.probability) for pair in data.pairs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, grey as their names, and whatever else a test needs."""
    for level in (10, 20, 30):
        (tmp_path / f"{level}.png").write_bytes(grey(level))
    return tmp_path


ROWS = [("a red one", "10.png", "20.png", 0.75), ("a blue one", "30.png", "10.png", 1.0)]
READ = [("a red one", 10, 20, 0.75), ("a blue one", 30, 10, 1.0)]
NAMES = ("prompt", "chosen", "rejected", "probability")


def write_table(file: Path, rows: list[tuple[Any, ...]], names: tuple[str, ...] = NAMES) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        file.write_text("".join(",".join(map(str, row)) + "\n" for row in [names, *rows]))
    return file


@pytest.mark.parametrize("name", ["pairs.jsonl", "any.csv", "other.parquet"])
def test_a_folder_of_a_table_and_images(folder: Path, name: str) -> None:
    file = write_table(folder / name, ROWS)
    assert levels(read_pairs(folder)) == levels(read_pairs(str(file))) == READ
    write_table(file, [row[:3] for row in ROWS], NAMES[:3])
    assert [pair.probability for pair in read_pairs(folder).pairs] == [1, 1]


def test_two_tables_are_one_too_many(folder: Path) -> None:
    write_table(folder / "pairs.jsonl", ROWS)
    write_table(folder / "pairs.csv", ROWS)
    with pytest.raises(TableError, match=r"pairs\.csv, pairs\.jsonl"):
        read_pairs(folder)
    (folder / "pairs.csv").rename(folder / "others.csv")
    with pytest.raises(TableError, match=r"choose a split from \['others', 'pairs'\]"):
        read_pairs(folder)
    assert levels(read_pairs(folder, split="others")) == READ


def picked(start: int, count: int) -> list[dict[str, Any]]:
    """Rows in Pick-a-Pic's layout: the brighter image is the first in even rows, and is preferred."""
    rows = []
    for place in range(start, start + count):
        bright, dark = grey(100 + place), grey(place)
        first, second, label = (dark, bright, 0.0) if place % 2 else (bright, dark, 1.0)
        rows.append(
            {"caption": f"p{place}", "jpg_0": first, "jpg_1": second, "label_0": label, "label_1": 1 - label, "user": 7}
        )
    return rows


def as_structs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {name: {"bytes": row[name], "path": None} for name in ("jpg_0", "jpg_1")} for row in rows]


def write_arrow(file: Path, rows: list[dict[str, Any]]) -> None:
    """A stream of batches of two rows."""
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("form", [list, as_structs])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_pick_a_pic_in_shards(tmp_path: Path, kind: str, form: Any) -> None:
    for shard in range(2):
        rows = form(picked(5 * shard, 5))
        if kind == "parquet":
            file = tmp_path / "data" / f"train-0000{shard}-of-00002-ab.parquet"
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
        else:
            write_arrow(tmp_path / f"data-0000{shard}-of-00002.arrow", rows)
            (tmp_path / "state.json").write_text("{}")
    counted = []
    data = read_pairs(tmp_path, advance=counted.append)
    assert levels(data) == [(f"p{place}", 100 + place, place, 1) for place in range(10)]
    assert not data.skipped
    assert sum(counted) == 10


def test_a_struct_may_name_its_file_and_each_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    structs = [(*row[:1], *({"bytes": None, "path": name} for name in row[1:3]), row[3]) for row in ROWS]
    write_table(folder / "pairs.parquet", structs)
    read, reads = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda file: reads.append(file.name) or read(file))
    data = read_pairs(folder)
    assert sorted(reads) == ["10.png", "20.png", "30.png"]
    assert levels(data) == READ


@pytest.mark.parametrize("name", ["bytes", "images"])
def test_pick_a_pic_saved_by_datasets(name: str) -> None:
    data = read_pairs(Path(__file__).parent / "saved_by_datasets" / name)
    assert levels(data) == [("a red one", 10, 40, 1), ("a blue one", 50, 20, 1)]
    assert data.skipped == {"tie": 1}


def test_what_cannot_be_learnt_from_is_counted(folder: Path) -> None:
    (folder / "same.png").write_bytes(grey(10))
    (folder / "torn.png").write_bytes(noise("png")[:-2000])
    (folder / "torn.jpg").write_bytes(noise("jpeg")[:-1000])  # which PIL's verify does not see
    flipped = bytearray(noise("png"))
    flipped[6000] ^= 1
    (folder / "flipped.png").write_bytes(flipped)
    (folder / "text.png").write_text("no picture")
    broken = ("torn.png", "torn.jpg", "flipped.png", "text.png", "missing.png", "", ".", None, 5)
    write_table(
        folder / "pairs.jsonl",
        [
            *ROWS,
            *(("x", name, "10.png", 1) for name in broken),
            ("x", "10.png", "same.png", 1),
            *((prompt, "10.png", "20.png", 1) for prompt in ("", " \n", None)),
            ("x", "10.png", "20.png", 0.5),
            *(("x", "10.png", "20.png", value) for value in (1.5, -0.1)),
            *(("x", "10.png", "20.png", value) for value in ("much", None)),
        ],
    )
    data = read_pairs(folder)
    assert levels(data) == READ
    assert data.examples["missing image"].startswith(f"'missing.png' in {folder} (looked for at {folder}/missing.png")
    assert data.skipped == {
        "broken image": 5,
        "missing image": 4,
        "equal images": 1,
        "empty prompt": 3,
        "tie": 1,
        "probability outside [0, 1]": 2,
        "probability that isn't a number": 2,
    }


def test_labels_of_pick_a_pic(tmp_path: Path) -> None:
    images = {"caption": "x", "jpg_0": grey(1), "jpg_1": grey(2)}
    labels = [(1, 0, True), (0.25, 0.75, True), (0.5, 0.5, True), (1, 0, False), (1, 1, True), (None, None, False)]
    rows = [images | {"label_0": a, "label_1": b, "has_label": known} for a, b, known in labels]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    data = read_pairs(tmp_path)
    assert levels(data) == [("x", 1, 2, 1), ("x", 2, 1, 0.75)]
    assert data.skipped == {"tie": 1, "no label": 2, "labels that don't add up to 1": 1}


@pytest.mark.parametrize(("text", "known"), [("False", False), ("0", False), ("", False), ("True", True), ("1", True)])
def test_whether_there_is_a_label_may_be_a_text(folder: Path, text: str, known: bool) -> None:
    """As a .csv has it."""
    columns = ("caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label")
    rows = [("x", "10.png", "20.png", "1", "0", text), ("x", "10.png", "20.png", "1", "0", "true")]
    data = read_pairs(write_table(folder / "p.csv", rows, columns))
    assert len(data.pairs) == 1 + known
    assert data.skipped == ({} if known else {"no label": 1})


def test_nothing_to_learn_from_is_refused_with_counts(folder: Path) -> None:
    write_table(folder / "pairs.jsonl", [("x", "10.png", "10.png", 1), ("", "10.png", "20.png", 1)])
    with pytest.raises(AlignError, match=r"no usable pair \(1 equal images, 1 empty prompt\)"):
        read_pairs(folder)


def test_missing_columns_are_reported(folder: Path) -> None:
    file = write_table(folder / "pairs.csv", [("x", "10.png")], ("prompt", "winner"))
    with pytest.raises(
        AlignError, match=rf"{re.escape(str(file))} has .*'winner'\]; expected prompt, chosen, rejected"
    ):
        read_pairs(folder)


def test_images_are_read_when_asked_for_and_known_by_their_bytes(folder: Path) -> None:
    write_table(folder / "pairs.jsonl", ROWS)
    data = read_pairs(folder)
    assert data.pairs[0].chosen == data.pairs[1].rejected
    for change in (lambda file: file.write_bytes(grey(11)), Path.unlink):
        change(folder / "10.png")
        with pytest.raises(AlignError, match=r"10\.png was changed or removed"):
            data.image(data.pairs[0].chosen)


def test_an_image_in_a_table_that_was_changed_is_reported(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(picked(0, 3)), tmp_path / "p.parquet")
    data = read_pairs(tmp_path)
    for rows in (picked(1, 3), picked(0, 1)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
        with pytest.raises(AlignError, match=r"row 3, jpg_0 of .*p\.parquet was changed or removed"):
            data.image(data.pairs[2].chosen)


def test_the_fingerprint_follows_prompts_images_order_and_probabilities(folder: Path) -> None:
    def fingerprint(rows: list[tuple[Any, ...]], name: str = "pairs.jsonl") -> str:
        file = write_table(folder / name, rows)
        value = read_pairs(file).fingerprint
        file.unlink()
        return value

    (folder / "copy.png").write_bytes(grey(20))
    (prompt, chosen, rejected, _), other = ROWS
    same = [fingerprint(ROWS), fingerprint(ROWS, "p.csv"), fingerprint([(prompt, chosen, "copy.png", 0.75), other])]
    changes = [("y", chosen, rejected, 0.75), (prompt, rejected, chosen, 0.75), (prompt, chosen, rejected, 0.7)]
    changed = [*([first, other] for first in changes), ROWS[::-1], ROWS[:1]]
    assert len(set(same)) == 1
    assert len({*same, *map(fingerprint, changed)}) == 6


def test_what_is_written_is_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out") / "new"
    pairs = [Pair("a red one, \n “quoted”", "a", "b", 1 / 3), Pair("x", "c", "a")]
    images = {"a": folder / "10.png", "b": folder / "20.png", "c": out / "images" / "c.png"}
    images["c"].parent.mkdir(parents=True)
    images["c"].write_bytes(grey(30))
    write_pairs(out, pairs, images)
    assert levels(read_pairs(out)) == [("a red one, \n “quoted”", 10, 20, 1 / 3), ("x", 30, 10, 1)]
    assert len(list((out / "images").iterdir())) == 3
    with pytest.raises(AlignError, match=r"missing\.png can't be read"):
        write_pairs(out / "torn", pairs, images | {"b": folder / "missing.png"})
    with pytest.raises(TableError, match="no table"):
        read_pairs(out / "torn")


def one_pair(folder: Path, chosen: str) -> Pairs:
    row = {"prompt": "a red one", "chosen": chosen, "rejected": "20.png"}
    good = {"prompt": "a blue one", "chosen": "30.png", "rejected": "10.png"}
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(good) + "\n")
    return read_pairs(folder)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_transparency_hides_is_not_learnt_from(mode: str, folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[8:24, 8:24] = (40, 40, 40, 255)
    image = Image.fromarray(pixels)
    image.convert("LA").save(folder / "a.png") if mode == "LA" else image.save(folder / "a.png")
    if mode == "P":
        palette = Image.new("P", (32, 32), 0)
        palette.putpalette([10, 200, 30, 40, 40, 40] + [0] * 762)
        palette.paste(1, (8, 8, 24, 24))
        palette.save(folder / "a.png", transparency=0)
    pairs = one_pair(folder, "a.png")
    shown = np.asarray(pairs.image(pairs.pairs[0].chosen))
    assert (shown[:6] == 255).all()
    assert (shown[10:20, 10:20] == 40).all()


def test_a_photograph_is_turned_as_its_exif_data_says(folder: Path) -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste((0, 0, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(folder / "a.png", exif=exif)
    pairs = one_pair(folder, "a.png")
    shown = pairs.image(pairs.pairs[0].chosen)
    assert shown.size == (32, 64)
    assert shown.getpixel((16, 8)) == (0, 0, 0)


@pytest.mark.parametrize("what", ["pipe", "folder", "large", "device"])
def test_what_is_no_image_file_of_a_usual_size_is_counted(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "pipe":
        os.mkfifo(folder / "a.png")
    elif what == "folder":
        (folder / "a.png").mkdir()
    elif what == "large":
        monkeypatch.setattr("deradiff.align.images.LARGEST", 1000)
        (folder / "a.png").write_bytes(noise("png"))
    pairs = one_pair(folder, "/dev/zero" if what == "device" else "a.png")
    assert len(pairs.pairs) == 1
    assert sum(pairs.skipped.values()) == 1


@pytest.mark.parametrize("side", [120, 200])  # a warning of Pillow's, and an error
def test_images_that_blow_up_when_decoded_are_counted(side: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    Image.new("1", (side, side)).save(folder / "a.png")
    pairs = one_pair(folder, "a.png")
    assert pairs.skipped == {"broken image": 1}
    assert pairs.examples["broken image"] == str(folder / "a.png")


@pytest.mark.parametrize("way", ["../outside/a.png", "absolute", "link", "linked/a.png"])
def test_images_outside_of_the_folder_are_read_only_where_that_is_allowed(way: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    for name in (folder, outside):
        name.mkdir()
    (folder / "20.png").write_bytes(grey(20))
    (outside / "a.png").write_bytes(grey(10))
    (folder / "link").symlink_to(outside / "a.png")
    (folder / "linked").symlink_to(outside)
    way = str(outside / "a.png") if way == "absolute" else way
    write_table(folder / "pairs.jsonl", [("x", "20.png", way, 1)])
    with pytest.raises(AlignError, match=rf"leads out of {folder}, to {outside}/a.png; .*unless --allow-outside"):
        read_pairs(folder)
    assert levels(read_pairs(folder, allow_outside=True)) == [("x", 20, 10, 1)]
    write_table(folder / "pairs.jsonl", [("x", str(folder / "20.png"), "linked/../20.png", 1)])
    with pytest.raises(AlignError, match=r"missing image: 'linked/\.\./20\.png' in"):  # it is beside the link's target
        read_pairs(folder)


@pytest.mark.parametrize("probability", ["1e400", "-1e400", "NaN", '"inf"', "1" + "0" * 400])
def test_a_number_that_is_none_is_an_error_with_its_row(probability: str, folder: Path) -> None:
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in ROWS]
    (folder / "p.jsonl").write_text("\n".join([*lines, lines[0].replace("0.75", probability)]))
    with pytest.raises(AlignError, match=r"p\.jsonl, row 3: a probability is .*; expected a number from 0 to 1"):
        read_pairs(folder)


def test_no_usable_image_is_an_error_that_says_where_it_was_looked_for(folder: Path) -> None:
    write_table(folder / "p.jsonl", [("x", "10.png", "images/a.png", 1), ("y", "10.png", "images/b.png", 1)])
    where = rf"the first missing image: 'images/a\.png' in {folder} \(looked for at {folder}/images/a\.png\)"
    with pytest.raises(AlignError, match=rf"no usable pair \(2 missing image\).*{where}"):
        read_pairs(folder)


def test_pairs_of_one_file_of_json_and_of_fields_between_semicolons(folder: Path) -> None:
    columns = dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))
    (folder / "p.json").write_text(json.dumps(columns))
    assert levels(read_pairs(folder / "p.json")) == READ
    (folder / "p.csv").write_text("\n".join(";".join(map(str, row)) for row in [NAMES, *ROWS]))
    assert levels(read_pairs(folder, delimiter=";")) == levels(read_pairs(folder)) == READ


@pytest.mark.parametrize("left", [["pytorch_lora_weights.safetensors"], ["run.json"], ["checkpoint.pt"], ["cache/x"]])
def test_what_a_training_or_a_run_wrote_beside_the_data_is_no_table_of_it(left: list[str], folder: Path) -> None:
    for name in [*left, "log.jsonl", "deep/cells.jsonl"]:
        (folder / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "out" / name).write_text("{}\n")
    assert len(one_pair(folder, "10.png").pairs) == 2
