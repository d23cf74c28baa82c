"""Seriously ill patients out of a published archive: what was known on a day, and what came."""

import csv
import io

import numpy as np

# What doctors and nurses knew on the third day of the study. Left out: what is known later only
# (costs, length of stay), scores that others computed from these columns, and schooling, income
# and race.
NUMBERS = """
    age num.co scoma hday meanbp wblc hrt resp temp pafi alb bili crea sod ph glucose bun urine adlp
    adls
""".split()  # noqa: SIM905 - easier to compare with the source
CODES = ["sex", "dzgroup", "ca", "diabetes", "dementia"]
# The interview after two months: no severe disability, or one of three kinds. Else it is not known:
# the patient died before, or nobody could be asked.
DISABILITY = {
    "no(M2 and SIP pres)": 0.0,
    "adl>=4 (>=5 if sur)": 1.0,
    "SIP>=30": 1.0,
    "Coma or Intub": 1.0,
}


def support2(content: bytes) -> dict:
    """Patients of five hospitals on the third day of the study, and what came of them.

    numbers: [9105, 20] float64, NaN where nobody measured; number_names: [20].
    codes: [9105, 5] uint8, categories; code_names: [5]; levels: [5] int64, how many categories a
        column has; level_names: those of the first column, then of the second, and so on.
    time: [9105] float64, days until death, or until the patient was last known to live.
    died: [9105] int64, 1 if `time` ends with death.
    disabled: [9105] float64, 1 severely disabled after two months, 0 not, NaN not known.
    lives: [9105, 2] float64, the chance to live two and six months by the model of the study;
        doctor: [9105, 2], by the patient's physician; NaN where there is none.
    dnr_day: [9105] float64, the day of the study of an order not to resuscitate, inf if there was
        none, NaN if nobody knows.
    care: [9105] float64, mean intensity of care on the days 3 to 25, NaN where not known.
    """
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8"))))

    def words(name):
        return [row[name].strip() for row in rows]

    def numbers(*names):
        columns = [[float(word) if word else np.nan for word in words(name)] for name in names]
        return np.array(columns, dtype=np.float64).T

    codes = {name: np.unique(words(name), return_inverse=True) for name in CODES}
    order, day = np.array(words("dnr")), numbers("dnrday")[:, 0]
    return {
        "numbers": numbers(*NUMBERS),
        "number_names": np.array(NUMBERS),
        "codes": np.column_stack([code for _, code in codes.values()]).astype(np.uint8),
        "code_names": np.array(CODES),
        "levels": np.array([len(kinds) for kinds, _ in codes.values()], dtype=np.int64),
        "level_names": np.array([kind for kinds, _ in codes.values() for kind in kinds]),
        "time": numbers("d.time")[:, 0],
        "died": np.array(words("death"), dtype=np.int64),
        "disabled": np.array([DISABILITY.get(word, np.nan) for word in words("sfdm2")]),
        "lives": numbers("surv2m", "surv6m"),
        "doctor": numbers("prg2m", "prg6m"),
        # where there was no order, the file has the day of discharge
        "dnr_day": np.where(order == "", np.nan, np.where(order == "no dnr", np.inf, day)),
        "care": numbers("avtisst")[:, 0],
    }
