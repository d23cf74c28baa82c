"""SUPPORT2 against what its source publishes, and a file of two patients."""

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course.data.tiers import clinic


def test_patients_have_the_counts_of_their_source():
    ds = load_or_skip("support2")
    assert len(ds.time) == 9105 and int(ds.died.sum()) == 6201
    groups = dict(zip(ds.level_names[2:10].tolist(), np.bincount(ds.codes[:, 1]), strict=True))
    assert groups == {
        "ARF/MOSF w/Sepsis": 3515,
        "CHF": 1387,
        "COPD": 967,
        "Cirrhosis": 508,
        "Colon Cancer": 512,
        "Coma": 596,
        "Lung Cancer": 908,
        "MOSF w/Malig": 712,
    }
    assert ds.time.min() == 3 and ds.time[ds.died == 0].min() == 344
    # three kinds of severe disability, and none
    assert int((ds.disabled == 1).sum()) == 916 + 564 + 41
    assert int((ds.disabled == 0).sum()) == 3061


def test_nobody_was_interviewed_after_death():
    ds = load_or_skip("support2")
    asked = ~np.isnan(ds.disabled)
    assert not (asked & (ds.died == 1) & (ds.time < 30)).any()


def test_estimates_are_chances_and_tell_who_lives():
    ds = load_or_skip("support2")
    for table in (ds.lives, ds.doctor):
        known = ~np.isnan(table)
        assert table[known].min() >= 0 and table[known].max() <= 1
        dead = (ds.died == 1) & (ds.time <= 60) & known[:, 0]
        assert table[dead, 0].mean() < table[~dead & known[:, 0], 0].mean() - 0.2


def test_a_file_of_two_patients():
    names = [*clinic.NUMBERS, *clinic.CODES, "d.time", "death", "sfdm2", "surv2m", "surv6m"]
    names += ["prg2m", "prg6m", "dnr", "dnrday", "avtisst"]
    one = dict.fromkeys(names, "1")
    one |= {"sex": "male", "urine": "", "sfdm2": "SIP>=30", "dnr": "no dnr", "prg6m": ""}
    two = dict.fromkeys(names, "2")
    two |= {"sex": " female", "death": "0", "sfdm2": "<2 mo. follow-up", "dnr": "dnr after sadm"}
    lines = [",".join(names), *(",".join(row[name] for name in names) for row in (one, two))]
    ds = clinic.support2("\n".join(lines).encode())
    assert ds["codes"][:, 0].tolist() == [1, 0] and ds["died"].tolist() == [1, 0]
    assert ds["disabled"][0] == 1 and np.isnan(ds["disabled"][1])
    assert ds["dnr_day"].tolist() == [np.inf, 2]
    assert np.isnan(ds["numbers"][0, clinic.NUMBERS.index("urine")])
    assert np.isnan(ds["doctor"][0, 1]) and ds["lives"].shape == (2, 2)


@pytest.mark.parametrize("late", ["slos", "charges", "totcst", "avtisst", "dnr", "sfdm2", "surv2m"])
def test_no_input_comes_from_later_or_from_another_model(late):
    assert late not in clinic.NUMBERS + clinic.CODES
