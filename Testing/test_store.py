"""The store of cases: what goes in comes out, patches, several processes, damage, and whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from dicom_series import CANARY

from NeuraxisLib.errors import GeometryError, InputError, OutputError
from NeuraxisLib.volume import Volume
from Training import store as store_file
from Training.store import BLEEDING, CLEAN, IGNORED, CaseInfo, Store, StoredCase
from Training.store_writer import COMPRESSIONS, StoreWriter, compact, content_hash

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs fork and file size limits")
SHAPE = (11, 70, 130)
#: A tilted gantry: each slice is shifted towards posterior.
SHEARED = np.array([[-0.5, 0, 0, 60.0], [0, -0.5, -1.5, 20.0], [0, 0, 5.0, -40.0], [0, 0, 0, 1.0]])


def made(name: str = "a", seed: int = 0, **changes) -> StoredCase:
    """A case on a sheared grid with unequal gaps, an outline, a brain and slice labels."""
    rng = np.random.default_rng(seed)
    array = rng.integers(-1000, 2000, SHAPE).astype(np.int16)
    array[:, :, 64:128] = -1000  # whole chunks of air
    truth = np.zeros(SHAPE, np.uint8)
    truth[3:6, 10:20, 30:50], truth[8, 60:65, 5:9], truth[0, 0, 0] = 1, 4, IGNORED
    origins = SHEARED[:3, 3] + np.cumsum(rng.uniform(3, 7, SHAPE[0]))[:, None] * [0, -0.3, 1.0]
    label = np.full(SHAPE[0], CLEAN, np.int8)
    label[[3, 4, 5, 8]] = BLEEDING
    values = {
        "id": name, "patient": f"p{name}", "group": "IPH", "split": "train",
        "image": Volume(array, SHEARED, "HU", slice_origins_ras=origins), "truth": truth, "region": array > 0,
        "slice_label": label, "flags": ("simulated",), "provenance": {"format": "test"},
    }  # fmt: skip
    return StoredCase(**(values | changes))


def write(path: Path, *cases: StoredCase, **options) -> Store:
    """A store of these cases."""
    with StoreWriter(path, {"made_by": "test"}, **options) as writer:
        for case in cases:
            writer.add(case)
    return Store(path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_case_comes_back_bit_for_bit(tmp_path, compression):
    case = made()
    back = write(tmp_path / "s.h5", case, compression=compression).case("a")
    for word in ("id", "patient", "group", "split", "flags", "provenance"):
        assert getattr(back, word) == getattr(case, word)
    assert back.image.array.dtype == np.int16 and np.array_equal(back.image.array, case.image.array)
    for word in ("truth", "region", "slice_label"):
        one, other = getattr(back, word), getattr(case, word)
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert np.array_equal(back.image.ijk_to_ras, SHEARED) and back.image.unit == "HU"
    assert np.array_equal(back.image.slice_origins_ras, case.image.slice_origins_ras)
    assert np.array_equal(back.image.voxel_volumes_ml, case.image.voxel_volumes_ml)


def test_stores_are_not_compressed_unless_that_is_asked_for_and_earlier_ones_go_into_them(tmp_path):
    """Stores of earlier versions are packed with LZF."""
    write(tmp_path / "earlier.h5", made("b", 1), compression="lzf")
    with StoreWriter(tmp_path / "s.h5") as writer:
        writer.add(made("a"))
        writer.add_from(tmp_path / "earlier.h5")
    store = Store(tmp_path / "s.h5")
    for name, seed, packed in (("a", 0, None), ("b", 1, "lzf")):
        place, case = store.place(name), store.case(name)
        assert {place[word].compression for word in ("image", "truth", "region")} == {packed}
        assert all(place[word].fletcher32 for word in ("image", "truth", "region"))
        assert np.array_equal(case.image.array, made(seed=seed).image.array)
        assert np.array_equal(case.truth, made().truth) and np.array_equal(case.region, case.image.array > 0)


def test_what_is_absent_stays_absent(tmp_path):
    flat = Volume(np.zeros((2, 8, 8), np.float32) + 0.25, np.eye(4), "grey")
    back = write(tmp_path / "s.h5", made(image=flat, truth=None, region=None, slice_label=None)).case("a")
    assert back.truth is None and back.region is None and back.slice_label is None
    assert back.image.slice_origins_ras is None and back.image.array[0, 0, 0] == 0.25


def test_the_index_tells_of_a_case_without_reading_arrays(tmp_path, monkeypatch):
    case = made()
    write(tmp_path / "s.h5", case)
    monkeypatch.setattr(store_file.Store, "place", lambda *_: pytest.fail("an array was touched"))
    info = Store(tmp_path / "s.h5").info("a")
    volumes = case.image.voxel_volumes_ml
    by_hand = {1: 200 * volumes[3:6].sum(), 4: 20 * volumes[8]}  # 10 x 20 pixels on three slices, 5 x 4 on one
    assert info.truth_ml == pytest.approx(by_hand, abs=1e-6)
    assert info.truth_slices == {1: [3, 4, 5], 4: [8]}
    assert info.shape_kji == SHAPE and info.sheared and not info.uniform and info.has_truth and info.has_region
    assert info.spacing_mm == pytest.approx(case.image.spacing_mm, abs=1e-5)
    assert CaseInfo.from_dict(info.to_dict() | {"of_a_newer_version": 1}) == info


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_parts_are_boxes_of_the_whole_inside_and_beyond_it(tmp_path, compression):
    case = made()
    store = write(tmp_path / "s.h5", case, compression=compression)
    whole = np.pad(case.image.array, 40, constant_values=-1000), np.pad(case.truth, 40), np.pad(case.region, 40)
    rng = np.random.default_rng(1)
    for _ in range(60):
        start = [int(rng.integers(-30, size + 20)) for size in SHAPE]
        box = tuple(slice(at, at + int(rng.integers(1, 20))) for at in start)
        shifted = tuple(slice(part.start + 40, part.stop + 40) for part in box)
        for found, expected in zip(store.part("a", box), whole, strict=True):
            assert found.dtype == expected.dtype and np.array_equal(found, expected[shifted])
    beyond = store.part("a", (slice(-1, 1), slice(0, 2), slice(0, 2)), outside=7)[0]
    assert (beyond[0] == 7).all() and np.array_equal(beyond[1], case.image.array[0, :2, :2])


def test_a_part_reads_only_the_chunks_it_meets(tmp_path):
    """A chunk elsewhere may even be damaged."""
    store = write(tmp_path / "s.h5", made(), compression="none")
    store.close()
    with h5py.File(tmp_path / "s.h5") as file:
        chunk = file["cases/000000/image"].id.get_chunk_info_by_coord((8, 0, 0))
    with open(tmp_path / "s.h5", "rb+") as file:
        file.seek(chunk.byte_offset + 10)
        file.write(b"\x55\xaa\x55")
    assert store.part("a", (slice(0, 8), slice(0, 64), slice(0, 64)))[0].shape == (8, 64, 64)
    with pytest.raises(InputError, match="'s.h5' is damaged"):
        store.part("a", (slice(8, 9), slice(0, 4), slice(0, 4)))


def test_foreground_is_where_something_is_marked(tmp_path):
    case = made()
    store = write(tmp_path / "s.h5", case)
    found = store.foreground_kji("a")
    assert len(found) == 3 * 10 * 20 + 5 * 4 and set(case.truth[tuple(found.T)]) == {1, 4}
    assert np.array_equal(store.foreground_kji("a", 4), np.argwhere(case.truth == 4))


def test_air_takes_no_room(tmp_path):
    air = made().image.like(np.full(SHAPE, -1000, np.int16), "HU")
    write(tmp_path / "air.h5", made(image=air, truth=np.zeros(SHAPE, np.uint8), region=None), compression="none")
    with h5py.File(tmp_path / "air.h5") as file:
        assert [file["cases/000000"][word].id.get_num_chunks() for word in ("image", "truth")] == [0, 0]
    assert (Store(tmp_path / "air.h5").case("a").image.array == -1000).all()


def test_single_pictures_lie_in_few_chunks(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (1, 300, 520)).astype(np.uint8)
    flat = Volume(picture, np.eye(4), "grey")
    store = write(tmp_path / "s.h5", made(image=flat, truth=None, region=None, slice_label=None))
    assert store.place("a")["image"].chunks == (1, 128, 128)
    assert np.array_equal(store.part("a", (slice(0, 1), slice(100, 200), slice(0, 520)))[0], picture[:, 100:200])


def test_time_series_keep_their_frames(tmp_path):
    frames = np.random.default_rng(0).integers(0, 90, (5, *SHAPE)).astype(np.int16)
    image = Volume(frames, np.eye(4), "HU", frame_times_s=np.array([0, 1.5, 3, 5, 8]))
    store = write(tmp_path / "s.h5", made(image=image))
    assert np.array_equal(store.case("a").image.array, frames)
    assert store.case("a").image.frame_times_s.tolist() == [0, 1.5, 3, 5, 8]
    assert np.array_equal(store.part("a", (slice(2, 4), slice(0, 9), slice(3, 5)))[0], frames[:, 2:4, :9, 3:5])
    assert store.info("a").shape_kji == SHAPE


def test_splits_and_groups(tmp_path):
    store = write(tmp_path / "s.h5", made("a"), made("b", split="test"), made("c", group="IVH"), made("d", split="val"))
    assert store.ids == ["a", "b", "c", "d"] and len(store) == 4
    assert store.of_split("train") == ["a", "c"] and store.of_split("test", "val") == ["b", "d"]
    assert store.groups == {"IPH": ["a", "b", "d"], "IVH": ["c"]}
    with pytest.raises(InputError, match="no split 'fold1'"):
        store.of_split("fold1")
    with pytest.raises(InputError, match="no case 'z'"):
        store.part("z", (slice(0, 1),) * 3)


def test_cases_are_copied_from_other_stores_as_they_lie(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.h5", made(name))
    with StoreWriter(tmp_path / "all.h5") as writer:
        writer.add_from(tmp_path / "b.h5", {"b": {"split": "val", "patient": "P"}})
        writer.add_from(tmp_path / "a.h5")
    store = Store(tmp_path / "all.h5")
    assert store.ids == ["b", "a"] and store.info("b").patient == "P" and store.of_split("val") == ["b"]
    assert store.case("b").split == "val" and np.array_equal(store.case("a").image.array, made().image.array)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"truth": np.zeros((11, 70, 129))}, GeometryError, "truth of 'a' has 129 x 70 x 11 voxels"),
        ({"region": np.zeros((3, 70, 130), bool)}, GeometryError, "region of 'a'"),
        ({"slice_label": np.zeros(4, np.int8)}, GeometryError, "11 slices but 4 slice labels"),
        ({"truth": np.full(SHAPE, 0.5)}, InputError, "values that are no labels"),
        ({"id": ""}, InputError, "no name"),
    ],
)
def test_cases_that_contradict_themselves_are_refused_and_nothing_is_left(tmp_path, changes, kind, words):
    with pytest.raises(kind, match=words):
        write(tmp_path / "s.h5", made(**changes))
    assert list(tmp_path.iterdir()) == []


def test_whole_or_not_at_all(tmp_path):
    before = write(tmp_path / "s.h5", made("old")).ids
    with pytest.raises(InputError, match="Two cases are called 'a'"):
        write(tmp_path / "s.h5", made("a"), made("a"))
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s.h5") as writer:
        writer.add(made("a"))
        raise KeyboardInterrupt
    assert Store(tmp_path / "s.h5").ids == before and [path.name for path in tmp_path.iterdir()] == ["s.h5"]


@POSIX
def test_a_full_disk_leaves_the_old_store(tmp_path):
    write(tmp_path / "s.h5", made("old"))
    process = multiprocessing.get_context("fork").Process(target=_write_within, args=(tmp_path / "s.h5", 60_000))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert Store(tmp_path / "s.h5").ids == ["old"] and len(list(tmp_path.iterdir())) == 1


def _write_within(path: Path, most_bytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        write(path, made("new"), compression="none")
    except OutputError as error:
        os._exit(0 if "'s.h5' could not be written" in str(error) else 2)
    os._exit(1)


@POSIX
def test_several_processes_read_one_store_and_forks_open_their_own(tmp_path):
    store = write(tmp_path / "s.h5", *(made(str(number), number) for number in range(4)))
    expected = {name: int(store.case(name).image.array.sum()) for name in store.ids}
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            names = store.ids * 5
            assert pool.starmap(_sum, [(store, name) for name in names]) == [expected[name] for name in names]


def _sum(store: Store, name: str) -> int:
    return int(store.part(name, tuple(slice(0, size) for size in SHAPE))[0].sum())


def test_a_travelling_store_takes_no_file_along(tmp_path):
    store = write(tmp_path / "s.h5", made())
    store.case("a")
    assert len(pickle.dumps(store)) < 5000
    with store:
        store.part("a", (slice(0, 1),) * 3)
    assert store.case("a").id == "a"  # a closed store opens again


def test_what_is_no_store_is_refused_in_one_sentence(tmp_path):
    write(tmp_path / "s.h5", made())
    data = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "text.h5").write_text("id,image")
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file.attrs["version"] = 99
    for name, words in {
        "gone.h5": "was not found", "text.h5": "is not a store", "cut.h5": "is damaged or cut short",
        "other.h5": "is not a store", "s.h5": "a newer version",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            Store(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="no compression 'zip'"):
        StoreWriter(tmp_path / "x.h5", compression="zip")


def test_values_are_kept_in_the_smallest_type_that_holds_them():
    kinds = {np.uint8: np.uint8, bool: np.uint8, np.int64: np.int16, np.float64: np.int16}
    for given, kept in kinds.items():
        assert compact(np.array([0, 1], given)).dtype == kept
    assert compact(np.array([0.5])).dtype == np.float32 and compact(np.array([40000])).dtype == np.float32
    one, other = np.array([[1.0, -5.0]]), np.array([[1, -5]], np.int16)
    assert content_hash(one) == content_hash(other) != content_hash(other.T)


def test_the_canary_of_a_patient_is_in_the_index_only_where_it_was_given(tmp_path):
    meta = {"description": CANARY, "modality": "CT"}
    image = Volume(made().image.array, SHEARED, "HU", meta=meta)
    write(tmp_path / "s.h5", made(image=image))
    assert CANARY.encode() not in (tmp_path / "s.h5").read_bytes()


# -- several channels ------------------------------------------------------------------------------------------------


def test_channels_are_named_and_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(5)
    array = rng.normal(10, 3, (2, 4, 70, 66)).astype(np.float32)
    truth = np.zeros((4, 70, 66), np.uint8)
    truth[1, 5, 6] = 2
    image = Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "maps")
    case = StoredCase("a", "p", "LVO", "train", image, truth, channels=("cbf", "tmax"), scalars={"nihss": 7})
    with StoreWriter(tmp_path / "maps.h5") as writer:
        writer.add(case)
    with Store(tmp_path / "maps.h5") as store:
        info, again = store.info("a"), store.case("a")
        assert info.channels == again.channels == ("cbf", "tmax") and info.scalars == again.scalars == {"nihss": 7.0}
        assert info.shape_kji == (4, 70, 66) and again.image.frame_times_s is None and info.truth_slices == {2: [1]}
        np.testing.assert_array_equal(again.image.array, array)
        part, cut, _ = store.part("a", (slice(1, 2), slice(4, 8), slice(60, 70)), outside=-1.0)
        assert part.shape == (2, 1, 4, 10) and (part[..., 6:] == -1).all() and cut[0, 1, 2] == 0
        np.testing.assert_array_equal(part[..., :6], array[:, 1:2, 4:8, 60:66])


def test_channels_that_do_not_fit_and_stores_without_any(tmp_path):
    image = Volume(np.zeros((2, 3, 8, 8)), np.eye(4), "maps")
    with StoreWriter(tmp_path / "maps.h5") as writer:
        with pytest.raises(GeometryError, match="'a' names 3 channels but its image has 2"):
            writer.add(StoredCase("a", "p", "", "", image, channels=("cbf", "cbv", "tmax")))
        with pytest.raises(GeometryError, match="names 1 channels but its image has none"):
            writer.add(StoredCase("a", "p", "", "", Volume(np.zeros((3, 8, 8)), np.eye(4)), channels=("cbf",)))
        info = writer.add(StoredCase("b", "p", "", "", Volume(np.ones((3, 8, 8)), np.eye(4))))
    earlier = {key: value for key, value in info.to_dict().items() if key not in ("channels", "scalars")}
    assert CaseInfo.from_dict(earlier) == info  # as stores of earlier versions have it
