import pytest

from pipelines.errors import ArtefactDamaged
from pipelines.inference.staging import LEDGER, Record, append_record, read_header, read_records, start_ledger

RECORDS = [Record("r0", "aa"), Record("r1", "bb", 0.1, 0.2, 3)]


@pytest.fixture
def ledger(tmp_path):
    start_ledger(tmp_path, {"key": "k"})
    for record in RECORDS:
        append_record(tmp_path, record)
    return tmp_path


def test_written_records_are_read(ledger):
    assert read_header(ledger) == {"key": "k"}
    assert read_records(ledger) == RECORDS


def test_an_incomplete_last_line_is_dropped(ledger):
    path = ledger / LEDGER
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last, len(content)):
        path.write_bytes(content[:length])
        assert read_records(ledger) == RECORDS[:1]
        append_record(ledger, RECORDS[1])
        assert read_records(ledger) == RECORDS


def test_an_incomplete_header_counts_as_no_ledger(tmp_path):
    (tmp_path / LEDGER).write_bytes(b'{"key": ')
    assert read_header(tmp_path) is None
    assert read_header(tmp_path / "nowhere") is None


def test_a_damaged_line_is_reported_with_its_position(ledger):
    path = ledger / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(ArtefactDamaged, match=r"ledger\.jsonl:2: not a JSON object .* delete .* and predict again"):
        read_records(ledger)


def test_a_record_of_another_version_is_reported(ledger):
    with (ledger / LEDGER).open("a") as file:
        file.write('{"other": 1}\n')
    with pytest.raises(ArtefactDamaged, match="not a record of this version"):
        read_records(ledger)
