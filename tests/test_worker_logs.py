"""What workers of a data loader say is heard once, whether they are forked or spawned."""

import logging

import pytest
from torch.utils.data import DataLoader, Dataset

from dino_uad.worker_logs import worker_logs
from helpers import start_method


class Talkative(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, item):
        logging.getLogger("dino_uad.talkative").info(f"slice {item} left out")
        logging.getLogger("dino_uad.talkative").debug("not for everyone")
        logging.getLogger("chatter").warning(f"warning {item}")
        return item


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_record_is_heard_once_and_no_other(caplog, monkeypatch, method):
    monkeypatch.setattr(logging.getLogger("chatter"), "level", logging.ERROR)
    with caplog.at_level(logging.INFO), start_method(method):
        logs = worker_logs(num_workers=2)
        assert sum(len(batch) for batch in DataLoader(Talkative(), num_workers=2, worker_init_fn=logs)) == 6
        logs.close()
    heard = [record for record in caplog.records if record.name in ("dino_uad.talkative", "chatter")]
    assert sorted(record.getMessage() for record in heard) == [f"slice {item} left out" for item in range(6)]
    assert all(record.processName != "MainProcess" for record in heard)


def test_no_thread_where_there_are_no_workers():
    assert worker_logs(0) is None
